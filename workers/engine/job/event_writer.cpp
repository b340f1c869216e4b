#include "workers/engine/job/event_writer.h"

#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <unistd.h>

#include <absl/strings/str_format.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

namespace qaas {
namespace {

std::string score_text(const char* what, const v1::ModelScore& score) {
  return absl::StrFormat("%-18s loss %.4f  perplexity %.4f  KL %.4f\n", what, score.loss(),
                         score.perplexity(), score.kl_divergence());
}

std::string duration_text(double seconds) {
  const auto whole = static_cast<int64_t>(std::lround(seconds));
  if (whole < 60) return absl::StrFormat("%ds", whole);
  if (whole < 3600) return absl::StrFormat("%dm %02ds", whole / 60, whole % 60);
  return absl::StrFormat("%dh %02dm", whole / 3600, whole / 60 % 60);
}

std::string progress_text(const v1::Progress& progress) {
  std::string where = phase_name(progress.phase());
  if (progress.phase() == v1::PHASE_BLOCK_TRAINING) {
    where += absl::StrFormat(" block %d/%d", progress.block() + 1, progress.block_count());
  }
  std::string text = absl::StrFormat("%5.1f%%  %s", 100 * progress.fraction(), where);
  if (progress.tokens_per_second() > 0) {
    text += absl::StrFormat("  loss %.5g  %.0f tokens/s", progress.loss(),
                            progress.tokens_per_second());
  }
  return text + "  " + duration_text(progress.remaining_seconds()) + " left";
}

}  // namespace

std::string phase_name(v1::Phase phase) {
  switch (phase) {
    case v1::PHASE_LOADING:
      return "loading";
    case v1::PHASE_BASELINE:
      return "baseline";
    case v1::PHASE_BLOCK_TRAINING:
      return "block training";
    case v1::PHASE_END_TO_END_TRAINING:
      return "end-to-end training";
    case v1::PHASE_EXPORTING:
      return "exporting";
    case v1::PHASE_EVALUATING:
      return "evaluating";
    case v1::PHASE_PUBLISHING:
      return "publishing";
    case v1::PHASE_PREPARING:
      return "preparing";
    default:
      return "working";
  }
}

EventWriter EventWriter::to_pipe(int fd) {
  EventWriter writer;
  writer.fd_ = fd;
  return writer;
}

EventWriter EventWriter::to_person() {
  EventWriter writer;
  writer.terminal_ = isatty(STDERR_FILENO) == 1;
  return writer;
}

void EventWriter::write(const v1::EngineEvent& event) {
  if (fd_ >= 0) {
    write_to_pipe(event);
  } else {
    write_to_person(event);
  }
}

void EventWriter::write_to_pipe(const v1::EngineEvent& event) const {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.WriteVarint32(static_cast<uint32_t>(event.ByteSizeLong()));
    event.SerializeToCodedStream(&coded);
  }
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t written = ::write(fd_, bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    done += static_cast<size_t>(written);
  }
}

void EventWriter::write_to_person(const v1::EngineEvent& event) {
  if (event.has_progress()) {
    const std::string text = progress_text(event.progress());
    if (terminal_) {
      std::fprintf(stderr, "\r\033[K%s", text.c_str());
      bar_shown_ = true;
    } else if (event.progress().fraction() - last_line_ >= 0.05) {
      std::fprintf(stderr, "%s\n", text.c_str());
      last_line_ = event.progress().fraction();
    }
    return;
  }
  if (bar_shown_) std::fputs("\r\033[K", stderr);
  bar_shown_ = false;
  if (event.has_phase_started()) {
    std::fprintf(stderr, "%s\n", phase_name(event.phase_started().phase()).c_str());
  } else if (event.has_block_finished()) {
    const v1::BlockFinished& block = event.block_finished();
    std::fprintf(stderr, "block %d/%d  mse %.5g -> %.5g  %.0f tokens/s\n", block.block() + 1,
                 block.block_count(), block.initial_loss(), block.final_loss(),
                 block.tokens_per_second());
  } else if (event.has_warning()) {
    std::fprintf(stderr, "warning: %s\n", event.warning().message().c_str());
  } else if (event.has_evaluation()) {
    const v1::Evaluation& evaluation = event.evaluation();
    std::fputs(score_text("original", evaluation.original()).c_str(), stderr);
    std::fputs(score_text("round to nearest", evaluation.round_to_nearest()).c_str(), stderr);
    for (const v1::StageScore& stage : evaluation.stages()) {
      std::fputs(score_text(("after " + stage.stage()).c_str(), stage.score()).c_str(), stderr);
    }
    std::fputs(score_text("artifact on disk", evaluation.quantized()).c_str(), stderr);
  } else if (event.has_failure()) {
    std::fprintf(stderr, "error: %s\n", event.failure().message().c_str());
  }
}

}  // namespace qaas
