#include "workers/engine/report/report_html.h"

#include <cmath>
#include <limits>
#include <set>

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <google/protobuf/util/message_differencer.h>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "workers/engine/report/report_files.h"

namespace qaas {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::Not;
using testing::read_file;
using testing::StatusIs;
using testing::TemporaryFolder;

/// What keeps `page` from being well-formed: unbalanced or unknown markup, a stray '&'. Empty when
/// nothing does.
std::string flaw_of(const std::string& page) {
  std::vector<std::string> open;
  for (size_t i = page.find('>') + 1; i < page.size(); ++i) {  // behind the document type
    if (page[i] == '&') {
      const size_t end = page.find(';', i);
      const std::string name = page.substr(i + 1, end - i - 1);
      static const std::set<std::string> kKnown = {"amp", "lt", "gt", "quot", "#39"};
      if (!kKnown.contains(name)) return absl::StrCat("entity at ", page.substr(i, 30));
    }
    if (page[i] != '<') continue;
    size_t end = i;
    for (bool quoted = false; end < page.size() && (quoted || page[end] != '>'); ++end) {
      if (page[end] == '"') quoted = !quoted;
      if (quoted && page[end] == '<') return absl::StrCat("'<' in ", page.substr(i, 60));
    }
    if (end == page.size()) return absl::StrCat("no end of ", page.substr(i, 60));
    const bool closing = page[i + 1] == '/';
    const size_t start = i + (closing ? 2 : 1);
    const std::string name = page.substr(start, page.find_first_of(" />\n", start) - start);
    if (name.empty() || !absl::ascii_isalpha(name[0])) return absl::StrCat("tag <", name, ">");
    if (closing) {
      if (open.empty() || open.back() != name) return absl::StrCat("</", name, "> closes nothing");
      open.pop_back();
    } else if (page[end - 1] != '/') {
      open.push_back(name);
    }
    i = end;
  }
  return open.empty() ? "" : absl::StrCat("<", open.back(), "> stays open");
}

/// A report with something in every part, all text of it `name`, all measurements from `value`.
v1::RunReport full_report(const std::string& name, double value) {
  v1::RunReport run;
  v1::Job& job = *run.mutable_job();
  job.set_name("jobs/" + name);
  job.set_model_digest(name);
  v1::JobSpec& spec = *job.mutable_spec();
  spec.set_model("models/" + name);
  spec.set_method(v1::METHOD_EFFICIENT_QAT);
  spec.set_preset(v1::PRESET_ACCURACY);
  spec.mutable_weights()->set_bits(2);
  spec.mutable_weights()->set_group_size(32);
  spec.mutable_activations()->set_bits(8);
  spec.add_overrides()->set_pattern(name);
  for (v1::Prediction* prediction : {job.mutable_forecast()->mutable_quantized(),
                                     job.mutable_forecast()->mutable_round_to_nearest()}) {
    prediction->set_error(value);
    prediction->set_relative_error(0.1);
    prediction->set_source(name);
    prediction->set_training_regime(name);
    prediction->set_extrapolated(true);
    prediction->add_notes(name);
  }
  v1::Evaluation& e = *run.mutable_evaluation();
  e.set_dataset("datasets/" + name);
  e.set_windows(64);
  e.set_sequence_length(256);
  e.set_measured_error(value);
  e.set_same_source(true);
  e.set_original_bytes(30'000'000);
  e.set_artifact_bytes(5'000'000);
  const auto score = [&](v1::ModelScore& model) {
    model.set_loss(value);
    model.set_perplexity(value);
    model.set_kl_divergence(value);
    model.set_top1_agreement(value);
    model.set_loss_stderr(value);
    model.set_loss_difference(value);
    model.set_loss_difference_stderr(value);
  };
  score(*e.mutable_original());
  score(*e.mutable_round_to_nearest());
  score(*e.mutable_quantized());
  for (const char* stage : {"block_ap", name.c_str()}) {
    e.add_stages()->set_stage(stage);
    score(*e.mutable_stages(e.stages_size() - 1)->mutable_score());
  }
  v1::TextScore& text = *e.add_texts();
  text.set_dataset("datasets/" + name);
  text.set_same_source(true);
  score(*text.mutable_original());
  score(*text.mutable_quantized());
  v1::TaskScore& task = *e.add_tasks();
  task.set_task(name);
  for (v1::TaskAccuracy* accuracy : {task.mutable_original(), task.mutable_quantized()}) {
    accuracy->set_acc(value);
    accuracy->set_acc_stderr(value);
  }
  const auto curve = [&](const std::string& stage) -> v1::TrainingCurve& {
    v1::TrainingCurve& added = *run.add_curves();
    added.set_stage(stage);
    for (int i = 1; i <= 40; ++i) added.add_steps(i), added.add_losses(value);
    for (int i = 0; i < 3; ++i) added.add_validation_losses(value);
    added.set_kept_epoch(1);
    added.set_seconds(value);
    added.set_tokens_per_second(value);
    added.set_tokens(1024);
    return added;
  };
  curve("block_ap").set_block(0);
  curve("block_ap").set_block(1);
  curve(name);
  run.mutable_signals()->set_windows(4);
  for (const std::string& projection : {std::string("model.layers.0.self_attn.q_proj"),
                                        std::string("model.layers.1.mlp.down_proj"), name}) {
    v1::ProjectionSignal& signal = *run.mutable_signals()->add_projections();
    signal.set_projection(projection);
    signal.set_weight_sqnr_db(value);
    signal.set_output_sqnr_db(value);
    signal.set_gradient_norm_original(value);
    signal.set_gradient_norm_quantized(value);
    signal.set_input_kurtosis(value);
    signal.set_loss_sensitivity(value);
    signal.set_bits(2);
    signal.set_frozen(true);
  }
  v1::AutomaticDecision& automatic = *run.mutable_automatic();
  automatic.add_frozen(name);
  (*automatic.mutable_bits())[name] = 4;
  automatic.set_average_bits(value);
  automatic.set_predicted_loss_rise(value);
  automatic.set_uniform_loss_rise(value);
  (*run.mutable_host())[name] = name;
  return run;
}

TEST(ReportHtml, IsWellFormedWithEverySection) {
  const std::string page = report_html(full_report("tiny", 0.5));
  EXPECT_EQ(flaw_of(page), "");
  for (const char* heading : {"Quality", "Tasks", "Forecast against measured", "Training",
                              "Projections", "Automatic choice", "Job"}) {
    EXPECT_THAT(page, HasSubstr(absl::StrCat("<h2>", heading, "</h2>")));
  }
}

TEST(ReportHtml, NeedsNothingFromOutside) {
  const std::string page = absl::AsciiStrToLower(report_html(full_report("tiny", 0.5)));
  for (const char* outside : {"://", "url(", "@import", "<script", "<link", " src=", " href="}) {
    EXPECT_THAT(page, Not(HasSubstr(outside)));
  }
}

TEST(ReportHtml, EscapesHostileNamesEverywhere) {
  const std::string name = "</title><script>alert(1)</script>\"' onload=x & \x01 ]]> <!--";
  const std::string page = report_html(full_report(name, 0.5));
  EXPECT_EQ(flaw_of(page), "");
  EXPECT_THAT(page, AllOf(Not(HasSubstr("<script")), Not(HasSubstr("\x01")),
                          HasSubstr("&lt;script&gt;alert(1)")));
}

TEST(ReportHtml, ShowsNoNumberThatIsNotFinite) {
  v1::RunReport run = full_report("t", 0.5);
  run.clear_job();  // proto JSON may spell such numbers out
  for (const double value :
       {double(NAN), double(INFINITY), -double(INFINITY), 0.0, -1.0, 1e300, -1e300, 5e-324}) {
    v1::RunReport odd = full_report("t", value);
    odd.mutable_job()->clear_spec();
    const std::string page = absl::AsciiStrToLower(report_html(odd));
    EXPECT_EQ(flaw_of(page), "") << value;
    for (const char* word : {"nan", "inf\"", "inf<", "inf "}) {
      EXPECT_THAT(page, Not(HasSubstr(word))) << value;
    }
  }
}

TEST(ReportHtml, LeavesOutWhatWasNotMeasured) {
  const std::string page = report_html({});
  EXPECT_EQ(flaw_of(page), "");
  for (const char* heading :
       {"Quality", "Tasks", "Forecast", "Training", "Projections", "Automatic"}) {
    EXPECT_THAT(page, Not(HasSubstr(absl::StrCat("<h2>", heading))));
  }
}

TEST(ReportHtml, WarnsOfAdaptationOnlyWhereTheTextsShareASource) {
  v1::RunReport run = full_report("tiny", 0.5);
  EXPECT_THAT(report_html(run), HasSubstr("come from the same source"));
  run.mutable_evaluation()->set_same_source(false);
  EXPECT_THAT(report_html(run), Not(HasSubstr("come from the same source")));
}

TEST(ReportHtml, StaysSmallForALargeModelAndLongCurves) {
  v1::RunReport run = full_report("large", 0.5);
  run.clear_curves();
  run.clear_signals();
  for (int block = 0; block < 80; ++block) {
    v1::TrainingCurve& curve = *run.add_curves();
    curve.set_stage("block_ap");
    curve.set_block(block);
    for (int i = 1; i <= 4096; ++i) curve.add_steps(i), curve.add_losses(1.0 / i);
    for (const char* name : {"q", "k", "v", "o", "gate", "up", "down"}) {
      v1::ProjectionSignal& signal = *run.mutable_signals()->add_projections();
      signal.set_projection(absl::StrCat("model.layers.", block, ".mlp.", name, "_proj"));
      signal.set_loss_sensitivity(block + 1);
      signal.set_weight_sqnr_db(block + 1);
    }
  }
  const std::string page = report_html(run);
  EXPECT_EQ(flaw_of(page), "");
  EXPECT_LT(page.size(), size_t{1} << 20);
}

TEST(WriteReport, JsonGivesBackTheSameReportAndPage) {
  const TemporaryFolder folder;
  const v1::RunReport run = full_report("tiny <&> \" ä", 0.1234567890123);
  ASSERT_THAT(write_report(run, folder.path()), IsOk());
  QAAS_ASSERT_OK_AND_ASSIGN(const v1::RunReport back, read_report(folder.path()));
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(run, back));
  EXPECT_EQ(report_html(back), read_file(folder / "report.html"));
  EXPECT_THAT(read_file(folder / "report.json"), HasSubstr("\"measured_error\""));
}

TEST(WriteReport, ReadingSaysWhatIsNoReport) {
  const TemporaryFolder folder;
  EXPECT_THAT(read_report(folder.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("report.json")));
  folder.write("report.json", "[1, 2]");
  EXPECT_THAT(read_report(folder.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("report.json: not a report")));
  folder.write("report.json", "{\"of_a_later_version\": 3}");
  EXPECT_THAT(read_report(folder.path()), IsOk());
}

}  // namespace
}  // namespace qaas
