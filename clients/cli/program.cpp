#include "clients/cli/program.h"

#include <chrono>
#include <string>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "clients/cli/commands.h"
#include "clients/cli/names.h"
#include "clients/cli/spec_flags.h"

namespace qaas::cli {
namespace {

/// What the command line says, filled in by CLI11.
struct Arguments {
  std::string server = "127.0.0.1:50051";
  double timeout_seconds = 30;
  bool json = false;

  SpecFlags spec;
  std::string request_id;
  bool validate_only = false;
  bool watch = false;

  std::string name;  ///< job or model
  int64_t after_event = 0;
  int limit = 50;
  std::string folder;
};

CLI::App* add_job_command(CLI::App& app, Arguments& arguments, const std::string& name,
                          const std::string& help) {
  CLI::App* command = app.add_subcommand(name, help);
  command->add_option("job", arguments.name, "Job, with or without 'jobs/'")->required();
  return command;
}

void describe_arguments(CLI::App& app, Arguments& arguments) {
  app.name("qaas");
  app.description("qaas: hand language models to a quantization service and get them back small.");
  app.set_version_flag("--version", "qaas " QAAS_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--server", arguments.server, "Server as HOST:PORT")
      ->envname("QAAS_SERVER")
      ->capture_default_str();
  app.add_option("--timeout", arguments.timeout_seconds, "Seconds to wait for one answer")
      ->check(CLI::Range(0.001, 86400.0))
      ->capture_default_str();
  app.add_flag("--json", arguments.json,
               "Proto JSON for scripts; watch prints an event a line, then the job");

  CLI::App* submit = app.add_subcommand("submit", "Queue a job");
  add_spec_flags(*submit, arguments.spec);
  submit->add_option("--request-id", arguments.request_id,
                     "UUID that makes a repeated submit return the same job; default: a new one");
  CLI::Option* validate_only = submit->add_flag("--validate-only", arguments.validate_only,
                                                "Check and forecast, queue nothing");
  submit->add_flag("--watch", arguments.watch, "Follow the job until it settles")
      ->excludes(validate_only);

  CLI::App* forecast = app.add_subcommand("forecast", "Predict error and size, queue nothing");
  add_spec_flags(*forecast, arguments.spec);

  app.add_subcommand("list", "List jobs, newest first")
      ->add_option("--limit", arguments.limit, "Jobs to list")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  add_job_command(app, arguments, "get", "Show one job, and its results once it is done");
  add_job_command(app, arguments, "watch", "Follow a job until it settles")
      ->add_option("--after-event", arguments.after_event, "Leave out events up to this number")
      ->check(CLI::NonNegativeNumber);
  add_job_command(app, arguments, "cancel", "Ask for a job to be cancelled");
  add_job_command(app, arguments, "artifacts", "List the files of a finished job");
  add_job_command(app, arguments, "download", "Fetch the files of a finished job; can be resumed")
      ->add_option("--out", arguments.folder, "Folder to put them in")
      ->required();
  app.add_subcommand("models", "List models, or show one")
      ->add_option("model", arguments.name, "Model, with or without 'models/'");
  // Set last: subcommands copy the footer of the moment they are made.
  app.footer(exit_code_help());
}

absl::StatusOr<ExitCode> run_command(const std::string& command, const Arguments& arguments,
                                     Console& console) {
  Connection connection(
      arguments.server,
      std::chrono::milliseconds(static_cast<int64_t>(arguments.timeout_seconds * 1000)));
  if (command == "submit" || command == "forecast") {
    const absl::StatusOr<v1::JobSpec> spec = build_spec(arguments.spec);
    if (!spec.ok()) return spec.status();
    if (command == "forecast") return forecast(console, connection, *spec);
    return submit(
        console, connection,
        {.spec = *spec,
         .request_id = arguments.request_id.empty() ? random_uuid() : arguments.request_id,
         .validate_only = arguments.validate_only,
         .watch = arguments.watch});
  }
  if (command == "list") return list_jobs(console, connection, arguments.limit);
  if (command == "get") return get_job(console, connection, arguments.name);
  if (command == "watch") {
    return watch_job(console, connection, arguments.name, arguments.after_event);
  }
  if (command == "cancel") return cancel_job(console, connection, arguments.name);
  if (command == "artifacts") return list_artifacts(console, connection, arguments.name);
  if (command == "download") {
    return download(console, connection, {.job = arguments.name, .folder = arguments.folder});
  }
  return show_models(console, connection, arguments.name);
}

}  // namespace

int run(int argc, const char* const* argv, Console& console) {
  CLI::App app;
  Arguments arguments;
  describe_arguments(app, arguments);
  // CLI11 reports wrong arguments, and --help, by throwing.
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const bool asked_for_help = app.exit(error, console.out, console.err) == 0;
    return static_cast<int>(asked_for_help ? ExitCode::kOk : ExitCode::kUsage);
  }
  console.json = arguments.json;
  const absl::StatusOr<ExitCode> result =
      run_command(app.get_subcommands().front()->get_name(), arguments, console);
  if (result.ok()) return static_cast<int>(*result);
  console.err << describe(result.status());
  return static_cast<int>(exit_code(result.status()));
}

}  // namespace qaas::cli
