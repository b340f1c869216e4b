#include "storage/checkpoint/model_config.h"

#include <nlohmann/json.hpp>

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using nlohmann::json;
using ::qaas::testing::IsOk;
using ::qaas::testing::StatusIs;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

json llama() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", 32000},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4}};
}

absl::StatusOr<ModelConfig> parse(const json& config) { return parse_model_config(config.dump()); }

absl::StatusOr<ModelConfig> parse_with(const char* field, const json& value) {
  json config = llama();
  config[field] = value;
  return parse(config);
}

TEST(ModelConfig, FillsTheDefaultsOfLlamaAndNamesThem) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto config, parse(llama()));
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.num_key_value_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.max_position_embeddings, 2048);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.rope.scaling, RopeConfig::Scaling::kNone);
  EXPECT_THAT(config.defaulted_fields,
              ElementsAre("num_key_value_heads", "head_dim", "max_position_embeddings",
                          "rms_norm_eps", "tie_word_embeddings", "bos_token_id", "rope_theta"));
}

TEST(ModelConfig, ReadsEveryField) {
  json text = llama();
  text.update({{"num_key_value_heads", 2},
               {"head_dim", 128},
               {"max_position_embeddings", 8192},
               {"rms_norm_eps", 1e-5},
               {"tie_word_embeddings", true},
               {"bos_token_id", 128},
               {"eos_token_id", {128, 129}},
               {"rope_theta", 500000.0},
               {"attention_bias", false},
               {"mlp_bias", false},
               {"hidden_act", "silu"},
               {"torch_dtype", "bfloat16"},
               {"use_cache", true}});
  QAAS_ASSERT_OK_AND_ASSIGN(const auto config, parse(text));
  EXPECT_EQ(config.vocab_size, 32000);
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.intermediate_size, 96);
  EXPECT_EQ(config.num_hidden_layers, 2);
  EXPECT_EQ(config.num_attention_heads, 4);
  EXPECT_EQ(config.num_key_value_heads, 2);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.max_position_embeddings, 8192);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.bos_token_id, 128);
  EXPECT_EQ(config.rope.theta, 500000.0);
  EXPECT_THAT(config.defaulted_fields, ElementsAre());
}

TEST(ModelConfig, TakesANullBeginOfSequenceForNone) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto config, parse_with("bos_token_id", nullptr));
  EXPECT_EQ(config.bos_token_id, -1);
}

TEST(ModelConfig, ReadsLlama3RopeInBothSpellings) {
  const json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
  json old_spelling = llama();
  old_spelling["rope_theta"] = 500000.0;
  old_spelling["rope_scaling"] = scaling;
  json new_spelling = llama();
  new_spelling["rope_parameters"] = scaling;
  new_spelling["rope_parameters"]["rope_theta"] = 500000.0;
  for (const json& text : {old_spelling, new_spelling}) {
    QAAS_ASSERT_OK_AND_ASSIGN(const auto config, parse(text));
    EXPECT_EQ(config.rope.scaling, RopeConfig::Scaling::kLlama3);
    EXPECT_EQ(config.rope.theta, 500000.0);
    EXPECT_EQ(config.rope.factor, 8.0);
    EXPECT_EQ(config.rope.low_freq_factor, 1.0);
    EXPECT_EQ(config.rope.high_freq_factor, 4.0);
    EXPECT_EQ(config.rope.original_max_position_embeddings, 8192);
  }
}

TEST(ModelConfig, LetsTheThetaInsideTheRopeObjectWin) {
  json text = llama();
  text["rope_theta"] = 20000.0;
  text["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 30000.0}};
  QAAS_ASSERT_OK_AND_ASSIGN(const auto inside, parse(text));
  EXPECT_EQ(inside.rope.theta, 30000.0);
  text["rope_parameters"].erase("rope_theta");
  QAAS_ASSERT_OK_AND_ASSIGN(const auto outside, parse(text));
  EXPECT_EQ(outside.rope.theta, 20000.0);
}

TEST(ModelConfig, ReadsLinearRopeUnderTheOldNameOfItsType) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto config,
                            parse_with("rope_scaling", {{"type", "linear"}, {"factor", 4}}));
  EXPECT_EQ(config.rope.scaling, RopeConfig::Scaling::kLinear);
  EXPECT_EQ(config.rope.factor, 4.0);
}

struct Refusal {
  const char* field;
  json value;
  const char* message;
};

TEST(ModelConfig, RefusesRopeThatItDoesNotKnowByName) {
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 4.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 8192}};
  json without_factor = llama3;
  without_factor.erase("factor");
  const std::vector<Refusal> cases = {
      {"rope_scaling", {{"type", "yarn"}, {"factor", 4}}, "'rope_scaling.type': is 'yarn'"},
      {"rope_scaling",
       {{"rope_type", "dynamic"}, {"factor", 4}},
       "accepted: default, linear, llama3"},
      {"rope_parameters",
       {{"rope_type", "longrope"}},
       "'rope_parameters.rope_type': is 'longrope'"},
      {"rope_scaling", {{"rope_type", "linear"}}, "'rope_scaling.factor': is missing"},
      {"rope_scaling", {{"rope_type", "linear"}, {"factor", 0.5}}, "factor': is the number 0.5"},
      {"rope_scaling", {{"rope_type", "linear"}, {"factor", "4"}}, "is the string '4'"},
      {"rope_scaling", {{"rope_type", "linear"}, {"type", "llama3"}, {"factor", 4}}, "contradicts"},
      {"rope_scaling", {{"rope_type", "default"}, {"mscale", 1.0}}, "'rope_scaling.mscale'"},
      {"rope_scaling", {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}, "accepted: 1"},
      {"rope_scaling", without_factor, "'rope_scaling.factor': is missing"},
      {"rope_scaling", llama3, "more than low_freq_factor"},
      {"rope_scaling", "linear", "expected an object"},
      {"rope_parameters", {{"full_attention", {{"rope_theta", 1.0}}}}, "full_attention"},
      {"rope_theta", 0, "field 'rope_theta'"},
      {"rope_theta", "1e4", "field 'rope_theta'"},
  };
  for (const Refusal& refusal : cases) {
    EXPECT_THAT(parse_with(refusal.field, refusal.value),
                StatusIs(kInvalid, HasSubstr(refusal.message)))
        << refusal.field << " " << refusal.value;
  }
}

TEST(ModelConfig, RefusesTwoRopeObjectsThatDiffer) {
  json text = llama();
  text["rope_scaling"] = {{"type", "linear"}, {"factor", 4}};
  text["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 8}};
  EXPECT_THAT(parse(text), StatusIs(kInvalid, HasSubstr("contradicts 'rope_parameters'")));
}

TEST(ModelConfig, RefusesWhatWouldChangeTheMathematics) {
  const std::vector<Refusal> cases = {
      {"attention_bias", true, "accepted: false"},
      {"mlp_bias", true, "accepted: false"},
      {"mlp_bias", "yes", "accepted: false"},
      {"hidden_act", "gelu", "is the string 'gelu', accepted: 'silu'"},
      {"sliding_window", 4096, "is the number 4096"},
      {"use_sliding_window", true, "accepted: false"},
      {"layer_types", {"full_attention", "sliding_attention"}, "'full_attention' in every layer"},
      {"partial_rotary_factor", 0.5, "accepted: 1"},
      {"attn_logit_softcapping", 50.0, "absent or null"},
      {"logit_scale", 0.0625, "accepted: 1"},
      {"num_local_experts", 8, "accepted: 0"},
      {"auto_map", {{"AutoModel", "modeling.Model"}}, "absent or null"},
      {"quantization_config", {{"quant_method", "gptq"}}, "absent or null"},
  };
  for (const Refusal& refusal : cases) {
    EXPECT_THAT(parse_with(refusal.field, refusal.value),
                StatusIs(kInvalid, AllOf(HasSubstr(std::string("field '") + refusal.field + "'"),
                                         HasSubstr(refusal.message))));
  }
}

TEST(ModelConfig, AcceptsTheNeutralValuesOfForeignFields) {
  json text = llama();
  text.update({{"sliding_window", nullptr},
               {"layer_types", {"full_attention", "full_attention"}},
               {"partial_rotary_factor", 1.0},
               {"num_local_experts", 0},
               {"logit_scale", 1},
               {"use_sliding_window", false}});
  EXPECT_THAT(parse(text), IsOk());
}

TEST(ModelConfig, RefusesUnknownFamiliesAndListsTheKnown) {
  EXPECT_THAT(parse_with("model_type", "gpt2"),
              StatusIs(kInvalid, HasSubstr("field 'model_type': is 'gpt2', accepted: llama")));
  EXPECT_THAT(parse_with("model_type", 3), StatusIs(kInvalid, HasSubstr("expected a string")));
  EXPECT_THAT(parse_with("architectures", {"LlamaForSequenceClassification"}),
              StatusIs(kInvalid, HasSubstr("accepted: [\"LlamaForCausalLM\"]")));
  json without = llama();
  without.erase("model_type");
  EXPECT_THAT(parse(without), StatusIs(kInvalid, HasSubstr("'model_type': is missing")));
}

TEST(ModelConfig, RefusesMissingAndImpossibleSizes) {
  for (const char* field : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                            "num_attention_heads"}) {
    json without = llama();
    without.erase(field);
    EXPECT_THAT(parse(without),
                StatusIs(kInvalid, HasSubstr(std::string("'") + field + "': is missing")));
    for (const json& value : {json(0), json(-1), json(1.5), json("8"), json(true), json::array(),
                              json(int64_t{1} << 40), json(~uint64_t{0})}) {
      EXPECT_THAT(parse_with(field, value),
                  StatusIs(kInvalid, HasSubstr(std::string("field '") + field + "'")))
          << value;
    }
  }
}

TEST(ModelConfig, RefusesHeadsThatDoNotFit) {
  EXPECT_THAT(parse_with("num_key_value_heads", 3),
              StatusIs(kInvalid, HasSubstr("does not divide the 4")));
  EXPECT_THAT(parse_with("num_key_value_heads", 8),
              StatusIs(kInvalid, HasSubstr("does not divide")));
  EXPECT_THAT(parse_with("head_dim", 15), StatusIs(kInvalid, HasSubstr("expected an even number")));
  EXPECT_THAT(parse_with("hidden_size", 66),
              StatusIs(kInvalid, HasSubstr("'head_dim': is missing")));
  EXPECT_THAT(parse_with("hidden_size", 4), StatusIs(kInvalid, HasSubstr("'head_dim'")));
}

TEST(ModelConfig, RefusesOtherValuesOutOfRange) {
  EXPECT_THAT(parse_with("rms_norm_eps", 0), StatusIs(kInvalid, HasSubstr("rms_norm_eps")));
  EXPECT_THAT(parse_with("rms_norm_eps", "1e-5"), StatusIs(kInvalid, HasSubstr("rms_norm_eps")));
  EXPECT_THAT(parse_with("tie_word_embeddings", 1), StatusIs(kInvalid, HasSubstr("true or false")));
  EXPECT_THAT(parse_with("bos_token_id", 32000), StatusIs(kInvalid, HasSubstr("to 31999")));
  EXPECT_THAT(parse_with("max_position_embeddings", 0),
              StatusIs(kInvalid, HasSubstr("max_position")));
}

TEST(ModelConfig, RefusesWhatIsNotAnObject) {
  EXPECT_THAT(parse_model_config("[]"), StatusIs(kInvalid, HasSubstr("expected a JSON object")));
  EXPECT_THAT(parse_model_config("{"), StatusIs(kInvalid, HasSubstr("not valid JSON")));
  EXPECT_THAT(parse_model_config(R"({"model_type":"llama","model_type":"llama"})"),
              StatusIs(kInvalid, HasSubstr("occurs twice")));
}

TEST(ModelConfig, CountsWithoutOverflowAtTheLargestSizesItAccepts) {
  json text = llama();
  text.update({{"vocab_size", 1 << 24},
               {"hidden_size", 1 << 18},
               {"intermediate_size", 1 << 20},
               {"num_hidden_layers", 4096},
               {"num_attention_heads", 4096},
               {"head_dim", 4096}});
  QAAS_ASSERT_OK_AND_ASSIGN(const auto config, parse(text));
  const double block = 4.0 * (1 << 18) * 4096 * 4096 + 3.0 * (1 << 18) * (1 << 20);
  EXPECT_NEAR(static_cast<double>(parameter_count(config)) / (4096 * block), 1.0, 1e-3);
}

TEST(ModelConfig, ListsTheTensorsOfACheckpointInModelOrder) {
  json text = llama();
  text.update({{"num_hidden_layers", 1}, {"num_key_value_heads", 2}, {"head_dim", 32}});
  QAAS_ASSERT_OK_AND_ASSIGN(const auto config, parse(text));
  std::vector<std::pair<std::string, std::vector<int64_t>>> tensors;
  for (const auto& tensor : expected_tensors(config))
    tensors.emplace_back(tensor.name, tensor.shape);
  using Shape = std::vector<int64_t>;
  EXPECT_THAT(tensors,
              ElementsAre(std::pair("model.embed_tokens.weight", Shape{32000, 64}),
                          std::pair("model.layers.0.input_layernorm.weight", Shape{64}),
                          std::pair("model.layers.0.self_attn.q_proj.weight", Shape{128, 64}),
                          std::pair("model.layers.0.self_attn.k_proj.weight", Shape{64, 64}),
                          std::pair("model.layers.0.self_attn.v_proj.weight", Shape{64, 64}),
                          std::pair("model.layers.0.self_attn.o_proj.weight", Shape{64, 128}),
                          std::pair("model.layers.0.post_attention_layernorm.weight", Shape{64}),
                          std::pair("model.layers.0.mlp.gate_proj.weight", Shape{96, 64}),
                          std::pair("model.layers.0.mlp.up_proj.weight", Shape{96, 64}),
                          std::pair("model.layers.0.mlp.down_proj.weight", Shape{64, 96}),
                          std::pair("model.norm.weight", Shape{64}),
                          std::pair("lm_head.weight", Shape{32000, 64})));
}

TEST(ModelConfig, CountsTheParametersOfItsTensors) {
  for (const bool tied : {false, true}) {
    QAAS_ASSERT_OK_AND_ASSIGN(const auto config, parse_with("tie_word_embeddings", tied));
    int64_t all = 0;
    int64_t inside = 0;
    for (const auto& tensor : expected_tensors(config)) {
      int64_t count = 1;
      for (const int64_t dimension : tensor.shape) count *= dimension;
      all += count;
      if (tensor.name != "model.embed_tokens.weight" && tensor.name != "lm_head.weight") {
        inside += count;
      }
    }
    EXPECT_EQ(parameter_count(config), all);
    EXPECT_EQ(non_embedding_parameter_count(config), inside);
  }
}

}  // namespace
}  // namespace qaas
