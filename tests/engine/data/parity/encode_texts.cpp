// encode_texts FOLDER: reads JSON strings, one a line, and writes for each a line of the ids that
// FOLDER's tokenizer gives, with and without special tokens: "[1,2,3] [2,3]", or the refusal.
#include <iostream>
#include <string>

#include <nlohmann/json.hpp>

#include "workers/engine/data/tokenizer.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto tokenizer = qaas::load_tokenizer(argv[1]);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  using Special = qaas::Tokenizer::SpecialTokens;
  for (std::string line; std::getline(std::cin, line);) {
    const auto text = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!text.is_string()) return 2;
    const auto with = (*tokenizer)->encode(text.get_ref<const std::string&>(), Special::kAdd);
    const auto without = (*tokenizer)->encode(text.get_ref<const std::string&>(), Special::kOmit);
    if (with.ok() && without.ok()) {
      std::cout << nlohmann::json(*with) << " " << nlohmann::json(*without) << "\n";
    } else {
      std::cout << with.status() << "\n";
    }
  }
  return 0;
}
