// The server as a process among others: ports, health, reflection, metrics, start and stop, rescue.
#include <set>
#include <sstream>
#include <thread>

#include <grpcpp/generic/generic_stub.h>

#include "server/server_flags.h"
#include "storage/database/database.h"
#include "tests/server/server_fixture.h"

namespace qaas::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

// A call without generated code, as health checkers and grpcurl make it: the bytes of one message
// each way.
grpc::Status call(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                  const std::string& request, std::string& response) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  const auto context = call_context();
  const grpc::Slice sent(request);
  const grpc::ByteBuffer message(&sent, 1);
  const auto reader = stub.PrepareUnaryCall(context.get(), method, message, &queue);
  reader->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  reader->Finish(&answer, &status, &queue);
  void* tag = nullptr;
  bool ok = false;
  EXPECT_TRUE(queue.Next(&tag, &ok));
  std::vector<grpc::Slice> slices;
  if (status.ok() && answer.Dump(&slices).ok()) {
    response.clear();
    for (const grpc::Slice& slice : slices) {
      response.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
  }
  return status;
}

// grpc.health.v1.Health/Check: field 1 of the request is the service, of the answer the status.
constexpr char kServing[] = "\x08\x01";
constexpr char kNotServing[] = "\x08\x02";

std::string health(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  std::string request;
  if (!service.empty())
    request = "\x0a" + std::string(1, static_cast<char>(service.size())) + service;
  std::string response;
  const grpc::Status status = call(channel, "/grpc.health.v1.Health/Check", request, response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response;
}

class ServerProcess : public ServerTest {};

TEST_F(ServerProcess, TwoServersCannotShareAPort) {
  ServerOptions second = options();
  second.listen = server().address();
  EXPECT_THAT(Server::start(second),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr(second.listen.text()), HasSubstr("in use"))));
  second = options();
  second.metrics = server().metrics_address();
  EXPECT_THAT(Server::start(second),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr(second.metrics.text()), HasSubstr("in use"))));
}

TEST_F(ServerProcess, RefusesToListenBeyondLoopback) {
  for (const char* address : {"0.0.0.0:0", "[::]:0", "192.0.2.1:0"}) {
    ServerOptions open = options();
    open.listen = *parse_listen_address(address);
    EXPECT_THAT(Server::start(open), StatusIs(absl::StatusCode::kInvalidArgument,
                                              HasSubstr("neither TLS nor authentication")));
    open = options();
    open.metrics = *parse_listen_address(address);
    EXPECT_THAT(Server::start(open), StatusIs(absl::StatusCode::kInvalidArgument,
                                              HasSubstr("neither TLS nor authentication")));
  }
}

TEST_F(ServerProcess, RefusesToStartWithoutItsFolders) {
  ServerOptions missing = options();
  missing.models = model_root() / "none";
  EXPECT_THAT(Server::start(missing),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--models")));
  missing = options();
  missing.datasets = dataset_root() / "text" / "a.txt";
  EXPECT_THAT(Server::start(missing),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--datasets")));
}

TEST_F(ServerProcess, RefusesAnotherSchemaVersion) {
  execute("INSERT INTO schema_version (number, name) VALUES (9999, 'future')");
  EXPECT_THAT(Server::start(options()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("9999")));
}

TEST_F(ServerProcess, HealthFollowsTheDatabaseForEveryService) {
  for (const char* service :
       {"", "qaas.v1.QuantizationService", "qaas.v1.ModelService", "qaas.v1.ArtifactService"}) {
    EXPECT_EQ(health(channel(), service), kServing) << service;
  }
  execute("INSERT INTO schema_version (number, name) VALUES (9999, 'future')");
  wait_until([&] { return health(channel(), "") == kNotServing; }, "NOT_SERVING");
  EXPECT_EQ(health(channel(), "qaas.v1.QuantizationService"), kNotServing);
  execute("DELETE FROM schema_version WHERE number = 9999");
  wait_until([&] { return health(channel(), "") == kServing; }, "SERVING again");
}

TEST_F(ServerProcess, ReflectionNamesTheServices) {
  // ServerReflectionRequest{list_services: ""}; one message each way of a stream reads as unary.
  std::string response;
  const grpc::Status status =
      call(channel(), "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
           std::string("\x3a\x00", 2), response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(response,
              AllOf(HasSubstr("qaas.v1.QuantizationService"), HasSubstr("qaas.v1.ModelService"),
                    HasSubstr("qaas.v1.ArtifactService")));
}

TEST_F(ServerProcess, MetricNamesArePinned) {
  submit();
  v1::Model model;
  get_model("models/none", model);
  std::string response;
  EXPECT_EQ(call(channel(), "/qaas.v1.Nonsense/Forged", "", response).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  std::string text;
  wait_until(
      [&] {
        text = scrape(server().metrics_address().port);
        return text.find("qaas_jobs{state=\"queued\"} 1") != std::string::npos;
      },
      "the job figures are read");
  std::set<std::string> names;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("# TYPE qaas", 0) == 0) names.insert(line.substr(7, line.size() - 7));
  }
  // Dashboards and alerts name these: changing one is a change of the interface.
  EXPECT_THAT(names, ElementsAreArray({
                         "qaas_build_info gauge",
                         "qaas_job_statistics_timestamp_seconds gauge",
                         "qaas_jobs gauge",
                         "qaas_oldest_queued_job_age_seconds gauge",
                         "qaas_server_database_up gauge",
                         "qaas_server_download_bytes_total counter",
                         "qaas_server_downloads gauge",
                         "qaas_server_models gauge",
                         "qaas_server_pool_busy_threads gauge",
                         "qaas_server_pool_queue_capacity gauge",
                         "qaas_server_pool_queued_tasks gauge",
                         "qaas_server_pool_refused_total counter",
                         "qaas_server_pool_threads gauge",
                         "qaas_server_rescued_jobs_total counter",
                         "qaas_server_rpc_duration_seconds histogram",
                         "qaas_server_rpcs_total counter",
                         "qaas_server_watchers gauge",
                     }));
  EXPECT_THAT(text, HasSubstr("qaas_server_rpcs_total{code=\"OK\",method=\"qaas.v1."
                              "QuantizationService/SubmitJob\"} 1"));
  EXPECT_THAT(text, HasSubstr("qaas_server_rpcs_total{code=\"UNIMPLEMENTED\",method=\"other\"} 1"));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("Forged")));
  EXPECT_THAT(text, HasSubstr("qaas_server_models{state=\"ready\"} 1"));
}

TEST_F(ServerProcess, RescuesAJobWhoseWorkerVanished) {
  ServerOptions hasty = options();
  hasty.jobs.lease = std::chrono::milliseconds(200);
  hasty.jobs.first_backoff = std::chrono::milliseconds(0);
  restart(hasty);
  const std::string name = submit();
  claim(name);
  expire_leases();
  wait_until([&] { return get(name).state() == v1::JOB_STATE_QUEUED; }, "the job is queued again");
  EXPECT_EQ(get(name).failures(), 1);
  wait_until(
      [&] {
        return scrape(server().metrics_address().port).find("qaas_server_rescued_jobs_total 1") !=
               std::string::npos;
      },
      "the rescue is counted");
}

TEST_F(ServerProcess, ExpiredDeadlineIsAnsweredAndTheServerServesOn) {
  grpc::ClientContext late;
  late.set_deadline(std::chrono::system_clock::now() - std::chrono::seconds(1));
  v1::ListJobsResponse page;
  EXPECT_EQ(jobs().ListJobs(&late, {}, &page).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(jobs().ListJobs(call_context().get(), {}, &page).ok());
}

TEST_F(ServerProcess, FullPoolRefusesInsteadOfWaiting) {
  ServerOptions narrow = options();
  narrow.sql_threads = 1;
  narrow.sql_queue = 1;
  restart(narrow);
  submit();
  // A lock on the table holds the one SQL thread until it is released.
  pqxx::connection connection(dsn());
  pqxx::work lock(connection);
  lock.exec("LOCK TABLE job IN ACCESS EXCLUSIVE MODE");
  std::vector<std::thread> callers;
  std::atomic<int> served{0};
  std::atomic<int> refused{0};
  for (int i = 0; i < 6; ++i) {
    callers.emplace_back([&] {
      v1::ListJobsResponse page;
      const grpc::Status status = jobs().ListJobs(call_context().get(), {}, &page);
      if (status.ok()) {
        ++served;
      } else {
        EXPECT_THAT(status, IsRefusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "SERVER_BUSY"));
        EXPECT_GT(details_of(status).retry.retry_delay().seconds(), 0);
        ++refused;
      }
    });
  }
  wait_until([&] { return refused >= 4; }, "calls beyond one running and one waiting are refused");
  v1::ForecastResponse forecast;
  EXPECT_THAT(jobs().Forecast(call_context().get(), {}, &forecast),
              IsRefusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "SERVER_BUSY"))
      << "it computes too long for a gRPC thread";
  lock.commit();
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(served, 2);
}

TEST_F(ServerProcess, ShutdownLetsCallsFinish) {
  submit();
  pqxx::connection connection(dsn());
  pqxx::work lock(connection);
  lock.exec("LOCK TABLE job IN ACCESS EXCLUSIVE MODE");
  grpc::Status status(grpc::StatusCode::UNKNOWN, "not finished");
  std::thread caller([&] {
    v1::ListJobsResponse page;
    status = jobs().ListJobs(call_context().get(), {}, &page);
  });
  wait_until(
      [&] {
        return scrape(server().metrics_address().port)
                   .find("qaas_server_pool_busy_threads{pool=\"sql\"} 1") != std::string::npos;
      },
      "the call is under way");
  std::thread stopping([this] { server().shutdown(std::chrono::seconds(30)); });
  lock.commit();
  caller.join();
  stopping.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(ServerProcess, FlagsNameOneDatabaseOrTheOther) {
  EXPECT_THAT(database_dsn({}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--database-file")));
  EXPECT_THAT(database_dsn({.dsn = "dbname=a", .file = "b"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("one of")));
  TemporaryFolder folder;
  QAAS_ASSERT_OK_AND_ASSIGN(
      const std::string dsn,
      database_dsn({.file = folder.write("dsn", "dbname=secret \n").string()}));
  EXPECT_EQ(dsn, "dbname=secret");
  EXPECT_THAT(database_dsn({.file = (folder / "none").string()}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("none")));
}

}  // namespace
}  // namespace qaas::testing
