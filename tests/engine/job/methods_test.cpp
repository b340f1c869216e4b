#include <nlohmann/json.hpp>

#include "tests/engine/job/job_fixture.h"
#include "workers/engine/exporters/artifact_reader.h"

namespace qaas {
namespace {

using testing::IsOk;
using testing::read_file;
using testing::RunLog;
using testing::tiny_spec;

/// Methods and options of the recipe, each through a whole job.
class Methods : public testing::JobTest {
 protected:
  static v1::JobSpec spec_of(v1::Method method) {
    v1::JobSpec spec = tiny_spec();
    spec.set_method(method);
    spec.clear_block_ap();
    spec.clear_e2e_qp();
    return spec;
  }
  nlohmann::json json_of(const std::string& name, const char* file) const {
    return nlohmann::json::parse(read_file(folders(name).out / file));
  }
};

TEST_F(Methods, GptqIsCloserToTheOriginalThanRoundToNearest) {
  RunLog log;
  ASSERT_THAT(run(spec_of(v1::METHOD_GPTQ), "a", &log), IsOk());
  EXPECT_LT(log.evaluation.quantized().kl_divergence(),
            log.evaluation.round_to_nearest().kl_divergence());
}

TEST_F(Methods, DistillationIsCloserToTheOriginalThanRoundToNearest) {
  RunLog log;
  ASSERT_THAT(run(spec_of(v1::METHOD_DISTILLATION_QAT), "a", &log), IsOk());
  EXPECT_LT(log.evaluation.quantized().kl_divergence(),
            log.evaluation.round_to_nearest().kl_divergence());
}

TEST_F(Methods, DistillationLearnsTheClipsOfActivations) {
  v1::JobSpec spec = spec_of(v1::METHOD_DISTILLATION_QAT);
  spec.mutable_activations()->set_bits(4);
  spec.mutable_activations()->set_learn_clip(false);
  ASSERT_THAT(run(spec, "fixed"), IsOk());
  spec.mutable_activations()->set_learn_clip(true);
  ASSERT_THAT(run(spec, "learned"), IsOk());
  EXPECT_NE(json_of("fixed", "activation_quantization.json"),
            json_of("learned", "activation_quantization.json"));
}

TEST_F(Methods, AutomaticWidthsStayWithinTheirBudget) {
  v1::JobSpec spec = spec_of(v1::METHOD_GPTQ);
  spec.mutable_automatic()->set_average_bits(4.5);
  ASSERT_THAT(run(spec, "a"), IsOk());
  const nlohmann::json choice = json_of("a", "report.json").at("automatic");
  EXPECT_LE(choice.at("average_bits"), 4.5);
  EXPECT_LE(choice.at("predicted_loss_rise"), choice.at("uniform_loss_rise"));
  const auto reader = ArtifactReader::open(folders("a").out);
  ASSERT_THAT(reader, IsOk());
  for (const auto& [name, grid] : reader->grids()) {
    EXPECT_EQ(choice.at("bits").at(name).get<int>(), grid.bits) << name;
  }
}

}  // namespace
}  // namespace qaas
