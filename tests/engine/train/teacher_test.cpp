#include "workers/engine/train/teacher.h"

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensor_matchers.h"
#include "tests/support/tiny_llama.h"

namespace qaas {
namespace {

using ::testing::HasSubstr;
using testing::is_near;
using testing::IsOk;
using testing::StatusIs;
using testing::TemporaryFolder;
using testing::write_tiny_llama;

constexpr int64_t kBlocks = 3, kWindows = 5, kSeq = 16, kDim = 64;

class TeacherTest : public ::testing::Test {
 protected:
  TeacherTest()
      : model_(write_tiny_llama(folder_.path(), {.blocks = kBlocks})),
        ends_(load_ends(model_.config(), source())),
        rope_(make_rope_table(model_.config(), kSeq)) {
    torch::manual_seed(1);
    ids_ = torch::randint(model_.config().vocab_size, {kWindows, kSeq}, torch::kInt64);
  }
  TensorSource source() const {
    return [this](const std::string& name) -> const TensorView& { return model_.tensor(name); };
  }
  TeacherBlocks blocks() const {
    return [this](int64_t i) { return load_block(model_.config(), source(), i); };
  }
  torch::Tensor plain() const {
    const torch::NoGradGuard no_grad;
    torch::Tensor stream = embed(ends_, ids_);
    for (int64_t i = 0; i < kBlocks; ++i) {
      stream = blocks()(i).value()->forward(stream, rope_, torch::kFloat32);
    }
    return stream;
  }
  absl::Status run(torch::Tensor& residual, const TeacherBlocks& source,
                   std::stop_token stop = {}) const {
    return run_teacher(ends_, kBlocks, source, ids_, rope_, torch::kFloat32, stop, residual);
  }

  TemporaryFolder folder_;
  ModelFolder model_;
  ModelEnds ends_;
  RopeTable rope_;
  torch::Tensor ids_;
};

TEST_F(TeacherTest, LeavesTheOutputOfTheLastBlockInTheRoomGiven) {
  torch::Tensor residual = torch::full({kWindows, kSeq, kDim}, 1e9);
  const void* room = residual.data_ptr();
  ASSERT_THAT(run(residual, blocks()), IsOk());
  EXPECT_EQ(residual.data_ptr(), room);
  EXPECT_TRUE(is_near(residual, plain(), 1e-5));
}

TEST_F(TeacherTest, InBfloat16ItIsRoundedOnly) {
  torch::Tensor residual = torch::empty({kWindows, kSeq, kDim}, torch::kBFloat16);
  ASSERT_THAT(run(residual, blocks()), IsOk());
  EXPECT_TRUE(is_near(residual, plain(), 2e-2));
}

TEST_F(TeacherTest, HoldsOneBlockAtATime) {
  std::vector<std::weak_ptr<Projection>> seen;
  torch::Tensor residual = torch::empty({kWindows, kSeq, kDim});
  ASSERT_THAT(run(residual,
                  [&](int64_t i) {
                    for (const auto& earlier : seen) EXPECT_TRUE(earlier.expired());
                    absl::StatusOr<DecoderBlock> block = blocks()(i);
                    seen.push_back((*block)->projections()[0].second);
                    return block;
                  }),
              IsOk());
  EXPECT_EQ(seen.size(), size_t(kBlocks));
}

TEST_F(TeacherTest, AFailingBlockAndAStopEndIt) {
  torch::Tensor residual = torch::empty({kWindows, kSeq, kDim});
  EXPECT_THAT(run(residual,
                  [](int64_t) -> absl::StatusOr<DecoderBlock> {
                    return absl::InvalidArgumentError("tensor 'x' is NaN");
                  }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'x'")));
  std::stop_source stop;
  int64_t asked = 0;
  EXPECT_THAT(run(
                  residual,
                  [&](int64_t i) {
                    ++asked;
                    if (i == 1) stop.request_stop();
                    return blocks()(i);
                  },
                  stop.get_token()),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("teacher")));
  EXPECT_EQ(asked, 2);
}

TEST_F(TeacherTest, LossesAreTheCrossEntropyOfEachNextToken) {
  const torch::Tensor residual = plain();
  const Teacher teacher{.ends = ends_, .residual = residual};
  const torch::Tensor losses = teacher_losses(teacher, ids_, 1, 4, torch::kFloat32);
  const torch::Tensor logits = torch::mm(
      final_hidden(ends_, residual.slice(0, 1, 4).narrow(1, 0, kSeq - 1).reshape({-1, kDim})),
      ends_.head.t());
  const torch::Tensor expected =
      -torch::log_softmax(logits, -1)
           .gather(1, ids_.slice(0, 1, 4).narrow(1, 1, kSeq - 1).reshape({-1, 1}))
           .view({3, kSeq - 1});
  EXPECT_TRUE(is_near(losses, expected, 1e-5));
}

}  // namespace
}  // namespace qaas
