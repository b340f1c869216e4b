// ListModels and GetModel: what the folder registry finds, and keeps over restarts.
#include "storage/checkpoint/digest.h"
#include "tests/server/server_fixture.h"

namespace qaas::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class Models : public ServerTest {
 protected:
  std::vector<std::string> names(int page_size = 0) {
    std::vector<std::string> all;
    v1::ListModelsRequest request;
    request.set_page_size(page_size);
    do {
      v1::ListModelsResponse page;
      const grpc::Status status = models().ListModels(call_context().get(), request, &page);
      EXPECT_TRUE(status.ok()) << status.error_message();
      for (const v1::Model& model : page.models()) {
        all.push_back(model.name());
        EXPECT_EQ(model.projections_size(), 0);
      }
      request.set_page_token(page.next_page_token());
    } while (!request.page_token().empty());
    return all;
  }
};

TEST_F(Models, ReadyModelIsDescribedWhole) {
  v1::Model model;
  ASSERT_TRUE(get_model("models/tiny", model).ok());
  EXPECT_EQ(model.architecture(), "llama");
  EXPECT_EQ(model.hidden_size(), 64);
  EXPECT_EQ(model.block_count(), 1);
  EXPECT_EQ(model.vocabulary_size(), 64);
  EXPECT_EQ(model.projections_size(), 7);
  EXPECT_EQ(model.projections(0).name(), "model.layers.0.self_attn.q_proj");
  EXPECT_GT(model.update_time().seconds(), 1700000000);
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string digest, sha256_folder(model_root() / "tiny"));
  EXPECT_EQ(model.sha256(), digest);
}

TEST_F(Models, ListsByNameOverPages) {
  write_tiny_model(model_root() / "a");
  write_tiny_model(model_root() / "z");
  wait_for_model("models/z", v1::Model::STATE_READY);
  EXPECT_THAT(names(1), ElementsAre("models/a", "models/tiny", "models/z"));
}

TEST_F(Models, HiddenFoldersFilesAndLinksOutOfTheRootAreIgnored) {
  TemporaryFolder outside;
  write_tiny_model(outside / "secret");
  std::filesystem::create_directory_symlink(outside / "secret", model_root() / "link");
  write_tiny_model(model_root() / ".hidden");
  write_tiny_model(model_root() / "bad name");
  std::ofstream(model_root() / "file") << "x";
  write_tiny_model(model_root() / "zlast");  // seen in the same scan as, or after, all above
  wait_for_model("models/zlast", v1::Model::STATE_READY);
  EXPECT_THAT(names(), ElementsAre("models/tiny", "models/zlast"));
}

TEST_F(Models, DamagedModelSaysWhyAndRecoversWhenRepaired) {
  std::filesystem::remove(model_root() / "tiny" / "config.json");
  wait_for_model("models/tiny", v1::Model::STATE_INVALID);
  v1::Model model;
  ASSERT_TRUE(get_model("models/tiny", model).ok());
  EXPECT_THAT(model.error(), HasSubstr("config.json"));
  EXPECT_THAT(model.error(), Not(HasSubstr(model_root().string())));
  EXPECT_EQ(model.sha256(), "");
  write_tiny_model(model_root() / "tiny");
  wait_for_model("models/tiny", v1::Model::STATE_READY);
}

TEST_F(Models, DigestIsRememberedOverARestart) {
  wait_until([&] { return execute("SELECT count(*) FROM folder")[0][0].as<int>() == 1; },
             "the digest is stored");
  stop_server();
  // Only a server that believes its record can answer with this.
  execute("UPDATE folder SET model = jsonb_set(model, '{sha256}', '\"remembered\"')");
  restart(options());
  v1::Model model;
  ASSERT_TRUE(get_model("models/tiny", model).ok());
  EXPECT_EQ(model.sha256(), "remembered");
}

TEST_F(Models, ChangedModelIsHashedAnewAfterARestart) {
  wait_until([&] { return execute("SELECT count(*) FROM folder")[0][0].as<int>() == 1; },
             "the digest is stored");
  stop_server();
  std::ofstream(model_root() / "tiny" / "README.md") << "new";
  restart(options());
  v1::Model model;
  ASSERT_TRUE(get_model("models/tiny", model).ok());
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string digest, sha256_folder(model_root() / "tiny"));
  EXPECT_EQ(model.sha256(), digest);
}

TEST_F(Models, UnknownAndMalformedNamesAreToldApart) {
  v1::Model model;
  EXPECT_THAT(get_model("models/none", model),
              IsRefusal(grpc::StatusCode::NOT_FOUND, "MODEL_NOT_FOUND"));
  for (const char* name : {"models/../tiny", "models/..", "jobs/tiny", "tiny", ""}) {
    EXPECT_THAT(violated_fields(get_model(name, model)), ElementsAre("name")) << name;
  }
}

}  // namespace
}  // namespace qaas::testing
