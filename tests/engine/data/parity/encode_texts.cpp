// encode_texts FOLDER [plain]: reads JSON strings, one a line, and writes for each a line of the
// ids that FOLDER's tokenizer gives, with and without special tokens around: "[1,2,3] [2,3]", or
// the refusal. With "plain" special tokens written in a text are plain text.
#include <iostream>
#include <string>

#include <nlohmann/json.hpp>

#include "workers/engine/data/tokenizer.h"

int main(int argc, char** argv) {
  const bool plain = argc == 3 && std::string(argv[2]) == "plain";
  if (argc != 2 && !plain) return 2;
  const auto tokenizer = qaas::load_tokenizer(argv[1]);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  using Special = qaas::Tokenizer::SpecialTokens;
  using Inside = qaas::Tokenizer::SpecialText;
  const Inside inside = plain ? Inside::kPlain : Inside::kParse;
  for (std::string line; std::getline(std::cin, line);) {
    const auto text = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!text.is_string()) return 2;
    const auto& words = text.get_ref<const std::string&>();
    const auto with = (*tokenizer)->encode(words, Special::kAdd, inside);
    const auto without = (*tokenizer)->encode(words, Special::kOmit, inside);
    if (with.ok() && without.ok()) {
      std::cout << nlohmann::json(*with) << " " << nlohmann::json(*without) << "\n";
    } else {
      std::cout << with.status() << "\n";
    }
  }
  return 0;
}
