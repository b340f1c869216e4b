#include "workers/agent/failure_table.h"

#include <csignal>
#include <cstring>
#include <utility>

#include <absl/strings/str_cat.h>

#include "workers/agent/phase_names.h"

namespace qaas {
namespace {

constexpr size_t kMaxMessageBytes = 4000;

/// A row of the table: what an ending means.
struct Meaning {
  v1::FailureClass failure_class;
  absl::StatusCode code;
  const char* words;
};

Meaning meaning_of_exit(int exit_code) {
  switch (exit_code) {
    case kEngineSucceeded:
      return {v1::FAILURE_CLASS_INTERNAL, absl::StatusCode::kInternal,
              "the engine ended without an artifact and its evaluation"};
    case kEngineCaller:
      return {v1::FAILURE_CLASS_CALLER, absl::StatusCode::kInvalidArgument,
              "the engine refused the job"};
    case kEngineResource:
      return {v1::FAILURE_CLASS_RESOURCE, absl::StatusCode::kResourceExhausted,
              "the engine ran out of memory, disk or time"};
    case kEngineStopped:
      return {v1::FAILURE_CLASS_INFRASTRUCTURE, absl::StatusCode::kUnavailable,
              "the engine was asked to stop by someone other than its worker"};
    case 126:
    case 127:
      return {v1::FAILURE_CLASS_INFRASTRUCTURE, absl::StatusCode::kUnavailable,
              "the engine could not be started"};
    default:
      return {v1::FAILURE_CLASS_INTERNAL, absl::StatusCode::kInternal, "the engine failed"};
  }
}

Meaning meaning_of_signal(int signal) {
  switch (signal) {
    case SIGKILL:
      return {v1::FAILURE_CLASS_RESOURCE, absl::StatusCode::kResourceExhausted,
              "the engine was killed, most likely because memory ran out"};
    case SIGXFSZ:
    case SIGXCPU:
      return {v1::FAILURE_CLASS_RESOURCE, absl::StatusCode::kResourceExhausted,
              "the engine passed a limit of its machine"};
    // A mapped file shrank, or a mapped file could not grow because the disk is full.
    case SIGBUS:
      return {v1::FAILURE_CLASS_INFRASTRUCTURE, absl::StatusCode::kUnavailable,
              "the engine lost access to a mapped file: the file changed or the disk is full"};
    case SIGTERM:
    case SIGINT:
    case SIGHUP:
    case SIGQUIT:
    case SIGPIPE:
      return {v1::FAILURE_CLASS_INFRASTRUCTURE, absl::StatusCode::kUnavailable,
              "the engine was stopped by someone other than its worker"};
    default:
      return {v1::FAILURE_CLASS_INTERNAL, absl::StatusCode::kInternal, "the engine crashed"};
  }
}

/// Classes by status code, for errors outside the engine.
v1::FailureClass class_of(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      return v1::FAILURE_CLASS_CALLER;
    case absl::StatusCode::kResourceExhausted:
      return v1::FAILURE_CLASS_RESOURCE;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:
      return v1::FAILURE_CLASS_INFRASTRUCTURE;
    default:
      return v1::FAILURE_CLASS_INTERNAL;
  }
}

v1::Failure make_failure(v1::FailureClass failure_class, absl::StatusCode code, std::string message,
                         const std::string& position) {
  v1::Failure failure;
  failure.set_failure_class(failure_class);
  failure.set_code(absl::StatusCodeToString(code));
  message.resize(std::min(message.size(), kMaxMessageBytes));
  failure.set_message(std::move(message));
  failure.set_position(position);
  return failure;
}

std::string process_words(const ProcessEnd& process) {
  if (process.signal != 0) {
    return absl::StrCat("signal ", process.signal, ", ", ::strsignal(process.signal));
  }
  return absl::StrCat("exit code ", process.exit_code);
}

}  // namespace

std::optional<v1::Failure> classify_engine_ending(const EngineEnding& ending) {
  const bool exited_well =
      ending.process.signal == 0 && ending.process.exit_code == kEngineSucceeded;
  const Meaning meaning = ending.process.signal != 0 ? meaning_of_signal(ending.process.signal)
                                                     : meaning_of_exit(ending.process.exit_code);
  // The engine's own word comes first: it knows names and values. Of having been stopped it knows
  // no more than its exit code says.
  if (ending.reported && ending.process.exit_code != kEngineStopped) {
    v1::Failure failure = *ending.reported;
    if (failure.failure_class() == v1::FAILURE_CLASS_UNSPECIFIED ||
        !v1::FailureClass_IsValid(failure.failure_class())) {
      failure.set_failure_class(meaning.failure_class);
    }
    if (failure.code().empty()) {
      failure.set_code(absl::StatusCodeToString(meaning.code));
    }
    if (failure.message().empty()) {
      failure.set_message(meaning.words);
    }
    if (failure.position().empty()) {
      failure.set_position(ending.position);
    }
    return failure;
  }
  if (!ending.stream.ok()) {
    return make_failure(v1::FAILURE_CLASS_INTERNAL, absl::StatusCode::kInternal,
                        absl::StrCat("the engine's events cannot be read: ",
                                     absl::string_view(ending.stream.message())),
                        ending.position);
  }
  if (exited_well && ending.artifact_written && ending.evaluated) {
    return std::nullopt;
  }
  std::string message = absl::StrCat(meaning.words, " (", process_words(ending.process), ")");
  if (!ending.last_line.empty()) {
    absl::StrAppend(&message, "; its last words: ", ending.last_line);
  }
  return make_failure(meaning.failure_class, meaning.code, std::move(message), ending.position);
}

v1::Failure classify_status(const absl::Status& status) {
  return make_failure(class_of(status.code()), status.code(), std::string(status.message()), "");
}

std::string position_of(const v1::Progress& progress) {
  std::string position = phase_name(progress.phase());
  if (progress.block_count() > 0) {
    absl::StrAppend(&position, " block ", progress.block());
  }
  if (progress.step_count() > 0) {
    absl::StrAppend(&position, " step ", progress.step());
  }
  return position;
}

std::string failure_class_name(v1::FailureClass failure_class) {
  switch (failure_class) {
    case v1::FAILURE_CLASS_CALLER:
      return "caller";
    case v1::FAILURE_CLASS_RESOURCE:
      return "resource";
    case v1::FAILURE_CLASS_INFRASTRUCTURE:
      return "infrastructure";
    default:
      return "internal";
  }
}

}  // namespace qaas
