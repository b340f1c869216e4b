#include "tests/server/server_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include <absl/strings/str_cat.h>

#include "google/rpc/status.pb.h"
#include "storage/checkpoint/model_config.h"
#include "storage/checkpoint/safetensors.h"

namespace qaas::testing {

ErrorDetails details_of(const grpc::Status& status) {
  ErrorDetails details;
  google::rpc::Status wire;
  EXPECT_TRUE(wire.ParseFromString(status.error_details()));
  for (const auto& detail : wire.details()) {
    detail.UnpackTo(&details.error_info) || detail.UnpackTo(&details.bad_request) ||
        detail.UnpackTo(&details.retry);
  }
  return details;
}

std::vector<std::string> violated_fields(const grpc::Status& status) {
  std::vector<std::string> fields;
  const ErrorDetails details = details_of(status);
  for (const auto& violation : details.bad_request.field_violations()) {
    fields.push_back(violation.field());
  }
  return fields;
}

std::unique_ptr<grpc::ClientContext> call_context() {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  return context;
}

void wait_until(const std::function<bool()>& done, const char* what) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!done()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "waited in vain: " << what;
    std::this_thread::yield();
  }
}

void write_tiny_model(const std::filesystem::path& folder) {
  const std::string config_json = R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
    "torch_dtype": "float32"})";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << config_json;
  const auto config = parse_model_config(config_json);
  ASSERT_THAT(config, IsOk());
  std::vector<std::vector<float>> values;
  std::vector<TensorToWrite> tensors;
  for (const ExpectedTensor& tensor : expected_tensors(*config)) {
    size_t count = 1;
    for (const int64_t extent : tensor.shape) count *= static_cast<size_t>(extent);
    values.emplace_back(count, 0.5F);
    tensors.push_back({.name = tensor.name,
                       .dtype = Dtype::kF32,
                       .shape = tensor.shape,
                       .bytes = std::as_bytes(std::span(values.back()))});
  }
  ASSERT_THAT(write_safetensors(folder / "model.safetensors", std::move(tensors)), IsOk());
}

std::string scrape(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
    EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
    char buffer[65536];
    for (ssize_t n = 0; (n = read(fd, buffer, sizeof buffer)) > 0;) answer.append(buffer, n);
  }
  close(fd);
  return answer;
}

void ServerTest::SetUp() {
  PostgresTest::SetUp();
  if (HasFatalFailure()) return;
  std::filesystem::create_directories(dataset_root() / "text");
  std::ofstream(dataset_root() / "text" / "a.txt") << "In the beginning.";
  write_tiny_model(model_root() / "tiny");
  store_ = std::make_unique<JobStore>(
      database(), JobStoreOptions{.first_backoff = std::chrono::milliseconds(0)});
  restart(options());
}

ServerOptions ServerTest::options() const {
  return {.listen = {.host = "127.0.0.1", .port = 0, .loopback = true},
          .metrics = {.host = "127.0.0.1", .port = 0, .loopback = true},
          .dsn = dsn(),
          .models = model_root(),
          .datasets = dataset_root(),
          .artifacts = artifact_root(),
          .sql_threads = 4,
          .scan_interval = std::chrono::milliseconds(50),
          .upkeep_interval = std::chrono::milliseconds(50),
          .statistics_interval = std::chrono::milliseconds(50)};
}

void ServerTest::restart(const ServerOptions& options) {
  server_.reset();
  auto started = Server::start(options);
  ASSERT_THAT(started, IsOk());
  server_ = *std::move(started);
  channel_ = grpc::CreateChannel(server_->address().text(), grpc::InsecureChannelCredentials());
  jobs_ = v1::QuantizationService::NewStub(channel_);
  models_ = v1::ModelService::NewStub(channel_);
  artifacts_ = v1::ArtifactService::NewStub(channel_);
  wait_for_model("models/tiny", v1::Model::STATE_READY);
}

v1::JobSpec ServerTest::round_to_nearest() {
  v1::JobSpec spec;
  spec.set_model("models/tiny");
  spec.set_method(v1::METHOD_ROUND_TO_NEAREST);
  spec.mutable_weights()->set_bits(4);
  spec.mutable_weights()->set_group_size(32);
  spec.mutable_evaluation()->set_dataset("datasets/text");
  return spec;
}

std::string ServerTest::submit() {
  v1::SubmitJobRequest request;
  *request.mutable_spec() = round_to_nearest();
  v1::Job job;
  const grpc::Status status = jobs().SubmitJob(call_context().get(), request, &job);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return job.name();
}

v1::Job ServerTest::get(const std::string& name) {
  v1::GetJobRequest request;
  request.set_name(name);
  v1::Job job;
  const grpc::Status status = jobs().GetJob(call_context().get(), request, &job);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return job;
}

grpc::Status ServerTest::get_model(const std::string& name, v1::Model& model) {
  v1::GetModelRequest request;
  request.set_name(name);
  return models().GetModel(call_context().get(), request, &model);
}

void ServerTest::wait_for_model(const std::string& name, v1::Model::State state) {
  wait_until(
      [&] {
        v1::Model model;
        return get_model(name, model).ok() && model.state() == state;
      },
      absl::StrCat(name, " in state ", v1::Model::State_Name(state)).c_str());
}

Lease ServerTest::claim(const std::string& name) {
  const absl::StatusOr<std::optional<ClaimedJob>> claimed = store().claim("worker-1");
  EXPECT_THAT(claimed, IsOk());
  EXPECT_TRUE(claimed.ok() && claimed->has_value());
  if (!claimed.ok() || !claimed->has_value()) return {};
  EXPECT_EQ((*claimed)->job.name(), name);
  return (*claimed)->lease;
}

}  // namespace qaas::testing
