// The judge of our tokenizer.model reader; a program of its own, since libsentencepiece must not
// share a process with another protobuf.
//   sentencepiece_ids train INPUT PREFIX FLAGS   trains PREFIX.model
//   sentencepiece_ids encode MODEL               JSON strings on stdin to ids on stdout, line by
//   line
#include <iostream>
#include <string>

#include <nlohmann/json.hpp>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "train" && argc == 5) {
    const auto status = sentencepiece::SentencePieceTrainer::Train(
        std::string("--input=") + argv[2] + " --model_prefix=" + argv[3] + " " + argv[4]);
    if (!status.ok()) std::cerr << status.ToString() << "\n";
    return status.ok() ? 0 : 1;
  }
  sentencepiece::SentencePieceProcessor processor;
  if (mode != "encode" || argc != 3 || !processor.Load(argv[2]).ok()) return 2;
  for (std::string line; std::getline(std::cin, line);) {
    const auto text = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!text.is_string()) return 2;
    std::vector<int> ids;
    if (!processor.Encode(text.get_ref<const std::string&>(), &ids).ok()) return 1;
    std::cout << nlohmann::json(ids) << "\n";
  }
  return 0;
}
