// An engine that does what a script says, for failures a real one cannot be made to have on demand.
// It takes qaas-engine's command line and runs the lines of the file `script` in the model folder:
//
//   phase N              PhaseStarted
//   progress BLOCK STEP  Progress, of 4 blocks and 100 steps
//   checkpoint NAME TEXT writes checkpoint NAME holding TEXT, then CheckpointWritten
//   announce NAME        CheckpointWritten for a file that is not there
//   artifact NAME TEXT   writes an artifact file
//   evaluation           Evaluation with loss 1 before and 2 after
//   written              ArtifactWritten with the files so far
//   failure CLASS TEXT   Failure with this class number
//   warning TEXT         Warning
//   resumed              Warning that names the checkpoints it found, each with its content
//   stderr N             N lines on stderr
//   garbage              bytes that are no event
//   note NAME            writes its process id to file NAME in the model folder
//   until NAME           waits for file NAME in the model folder
//   wait                 until SIGTERM, then writes checkpoint "stopped", reports that and exits 75
//   deaf                 ignores SIGTERM and waits forever
//   exit N, signal N     ends itself
//
// A line that begins with "1:" (or another number) runs in that attempt only.

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <signal.h>
#include <sstream>
#include <string>
#include <unistd.h>

#include <google/protobuf/util/delimited_message_util.h>
#include <google/protobuf/util/json_util.h>

#include "qaas/v1/event.pb.h"
#include "qaas/v1/job.pb.h"

namespace {

namespace fs = std::filesystem;
using qaas::v1::EngineEvent;

std::string content_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class FakeEngine {
 public:
  FakeEngine(int argc, char** argv) {
    if (argc < 2 || std::string(argv[1]) != "run") {
      std::exit(2);
    }
    for (int i = 2; i + 1 < argc; i += 2) {
      flags_[argv[i]] = argv[i + 1];
    }
    events_ = std::stoi(flags_.at("--events-fd"));
    const auto parsed =
        google::protobuf::util::JsonStringToMessage(content_of(flags_.at("--job")), &job_);
    if (!parsed.ok()) {
      std::exit(1);
    }
  }

  int run() {
    std::istringstream script(content_of(fs::path(flags_.at("--model")) / "script"));
    for (std::string line; std::getline(script, line);) {
      const size_t colon = line.find(':');
      if (colon == 1) {
        if (line[0] - '0' != job_.attempt()) {
          continue;
        }
        line = line.substr(2);
      }
      std::istringstream words(line);
      std::string verb;
      words >> verb;
      step(verb, words);
    }
    return 0;
  }

 private:
  static std::string rest(std::istringstream& words) {
    std::string text;
    std::getline(words >> std::ws, text);
    return text;
  }

  template <typename T>
  static T next(std::istringstream& words) {
    T value{};
    words >> value;
    return value;
  }

  void send(const EngineEvent& event) {
    if (!google::protobuf::util::SerializeDelimitedToFileDescriptor(event, events_)) {
      std::exit(1);
    }
  }

  void warn(const std::string& text) {
    EngineEvent event;
    event.mutable_warning()->set_message(text);
    send(event);
  }

  void write_checkpoint(const std::string& name, const std::string& text) {
    const fs::path folder = flags_.at("--checkpoints");
    std::ofstream(folder / (name + ".part"), std::ios::binary) << text;
    fs::rename(folder / (name + ".part"), folder / name);
    announce(name);
  }

  void announce(const std::string& name) {
    EngineEvent event;
    event.mutable_checkpoint_written()->set_file(name);
    event.mutable_checkpoint_written()->set_description("as scripted");
    send(event);
  }

  void step(const std::string& verb, std::istringstream& words) {
    EngineEvent event;
    if (verb == "phase") {
      event.mutable_phase_started()->set_phase(static_cast<qaas::v1::Phase>(next<int>(words)));
      send(event);
    } else if (verb == "progress") {
      auto* progress = event.mutable_progress();
      progress->set_phase(qaas::v1::PHASE_BLOCK_TRAINING);
      progress->set_block(next<int>(words));
      progress->set_block_count(4);
      progress->set_step(next<int>(words));
      progress->set_step_count(100);
      progress->set_fraction(0.25);
      send(event);
    } else if (verb == "checkpoint") {
      const auto name = next<std::string>(words);
      write_checkpoint(name, rest(words));
    } else if (verb == "announce") {
      announce(next<std::string>(words));
    } else if (verb == "artifact") {
      const auto name = next<std::string>(words);
      std::ofstream(fs::path(flags_.at("--out")) / name, std::ios::binary) << rest(words);
      files_.insert(name);
    } else if (verb == "evaluation") {
      event.mutable_evaluation()->mutable_original()->set_loss(1);
      event.mutable_evaluation()->mutable_quantized()->set_loss(2);
      event.mutable_evaluation()->set_measured_error(1);
      send(event);
    } else if (verb == "written") {
      event.mutable_artifact_written();
      for (const std::string& file : files_) {
        event.mutable_artifact_written()->add_files(file);
      }
      send(event);
    } else if (verb == "failure") {
      event.mutable_failure()->set_failure_class(
          static_cast<qaas::v1::FailureClass>(next<int>(words)));
      event.mutable_failure()->set_message(rest(words));
      send(event);
    } else if (verb == "warning") {
      warn(rest(words));
    } else if (verb == "resumed") {
      std::set<std::string> found;
      for (const auto& entry : fs::directory_iterator(flags_.at("--checkpoints"))) {
        found.insert(entry.path().filename().string() + "=" + content_of(entry.path()));
      }
      std::string text = "resumed from";
      for (const std::string& file : found) {
        text += " " + file;
      }
      warn(text);
    } else if (verb == "stderr") {
      for (int i = next<int>(words); i > 0; --i) {
        std::fprintf(stderr, "line of the fake engine, %d to go\n", i - 1);
      }
    } else if (verb == "garbage") {
      const std::string bytes = "\x05garbage that is no event";
      if (::write(events_, bytes.data(), bytes.size()) < 0) {
        std::exit(1);
      }
      ::pause();
    } else if (verb == "note") {
      const fs::path file = fs::path(flags_.at("--model")) / next<std::string>(words);
      std::ofstream(file.string() + ".part") << ::getpid();
      fs::rename(file.string() + ".part", file);
    } else if (verb == "until") {
      const fs::path file = fs::path(flags_.at("--model")) / next<std::string>(words);
      while (!fs::exists(file)) {
        ::usleep(1000);
      }
    } else if (verb == "wait") {
      sigset_t set;
      ::sigemptyset(&set);
      ::sigaddset(&set, SIGTERM);
      ::sigprocmask(SIG_BLOCK, &set, nullptr);
      warn("waiting");
      int signal = 0;
      ::sigwait(&set, &signal);
      write_checkpoint("stopped", "as asked");
      event.mutable_failure()->set_failure_class(qaas::v1::FAILURE_CLASS_INTERNAL);
      event.mutable_failure()->set_message("stopped");
      send(event);
      std::exit(75);
    } else if (verb == "deaf") {
      ::signal(SIGTERM, SIG_IGN);
      warn("deaf");
      while (true) {
        ::pause();
      }
    } else if (verb == "exit") {
      std::exit(next<int>(words));
    } else if (verb == "signal") {
      ::raise(next<int>(words));
    } else if (!verb.empty()) {
      std::fprintf(stderr, "fake engine: no such line '%s'\n", verb.c_str());
      std::exit(99);
    }
  }

  std::map<std::string, std::string> flags_;
  int events_ = -1;
  qaas::v1::Job job_;
  std::set<std::string> files_;
};

}  // namespace

int main(int argc, char** argv) { return FakeEngine(argc, argv).run(); }
