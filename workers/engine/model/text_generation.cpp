#include "workers/engine/model/text_generation.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "workers/engine/model/key_value_cache.h"
#include "workers/engine/model/language_head.h"

namespace qaas {
namespace {

constexpr int64_t kCacheBudget = int64_t{1} << 30;
constexpr int64_t kMostAtOnce = 256;  // products gain nothing from more rows

int64_t element_bytes(torch::ScalarType compute) {
  return static_cast<int64_t>(c10::elementSize(compute));
}

/// Keys and values of one sequence in all blocks.
int64_t cache_bytes(const ModelConfig& config, const GenerationOptions& options) {
  return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim *
         options.length * element_bytes(options.compute);
}

/// `count` vocabulary entries in random order, starting over when all are used. Spelled out,
/// because what std::shuffle draws differs between standard libraries.
std::vector<int64_t> first_tokens(int64_t vocabulary, int64_t count, uint64_t seed) {
  std::vector<int64_t> entries(static_cast<size_t>(vocabulary));
  std::iota(entries.begin(), entries.end(), int64_t{0});
  std::mt19937_64 generator(seed);
  for (size_t i = entries.size(); i > 1; --i) std::swap(entries[i - 1], entries[generator() % i]);
  std::vector<int64_t> tokens(static_cast<size_t>(count));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = entries[i % entries.size()];
  return tokens;
}

/// A stream of numbers of one sequence: what it writes does not depend on its neighbours.
std::mt19937_64 generator_of(uint64_t seed, int64_t sequence) {
  std::seed_seq words{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                      static_cast<uint32_t>(sequence)};
  return std::mt19937_64(words);
}

/// Uniform in [0, 1) with 53 bits.
double draw(std::mt19937_64& generator) { return static_cast<double>(generator() >> 11) * 0x1p-53; }

/// One token a row from log_probabilities [rows, vocab] float32: where the cumulated probability
/// passes the row's uniform number. → [rows] int64.
torch::Tensor sample(const torch::Tensor& log_probabilities, double temperature,
                     const torch::Tensor& uniform) {
  const torch::Tensor cumulated =
      torch::softmax(log_probabilities / temperature, -1, torch::kFloat64).cumsum(1);
  const int64_t last = log_probabilities.size(1) - 1;
  const torch::Tensor threshold = uniform.unsqueeze(1) * cumulated.narrow(1, last, 1);
  return torch::searchsorted(cumulated, threshold, /*out_int32=*/false, /*right=*/true)
      .squeeze(1)
      .clamp_max(last);
}

}  // namespace

int64_t sequences_at_once(const ModelConfig& config, const GenerationOptions& options) {
  return std::clamp<int64_t>(kCacheBudget / cache_bytes(config, options), 1,
                             std::min(options.sequences, kMostAtOnce));
}

int64_t generation_bytes(const ModelConfig& config, const GenerationOptions& options) {
  int64_t weights = config.vocab_size * config.hidden_size;  // the head
  for (const Projection2d& projection : decoder_projections(config)) {
    weights += projection.output_size * projection.input_size;
  }
  const int64_t at_once = sequences_at_once(config, options);
  // Log-probabilities and logits in float32, probabilities and their sums in float64.
  constexpr int64_t kBytesPerEntry = 4 + 4 + 8 + 8;
  return weights * element_bytes(options.compute) + at_once * cache_bytes(config, options) +
         at_once * config.vocab_size * kBytesPerEntry;
}

absl::StatusOr<torch::Tensor> generate_text(const ModelConfig& config, const ModelEnds& ends,
                                            std::vector<DecoderBlock>& blocks,
                                            const GenerationOptions& options,
                                            const GenerationProgress& progress,
                                            std::stop_token stop) {
  const torch::NoGradGuard no_grad;
  const RopeTable rope = make_rope_table(config, options.length);
  const LanguageHead head(ends, options.compute);
  const torch::Tensor text =
      torch::empty({options.sequences, options.length}, torch::kInt64);  // [sequences, length]
  text.select(1, 0).copy_(
      torch::tensor(first_tokens(config.vocab_size, options.sequences, options.seed)));

  const int64_t at_once = sequences_at_once(config, options);
  for (int64_t first = 0; first < options.sequences; first += at_once) {
    const int64_t batch = std::min(at_once, options.sequences - first);
    const torch::Tensor rows = text.narrow(0, first, batch);  // [batch, length]
    std::vector<KeyValueCache> caches;
    for (size_t i = 0; i < blocks.size(); ++i) {
      caches.push_back(make_key_value_cache(config, batch, options.length, options.compute));
    }
    std::vector<std::mt19937_64> generators;
    for (int64_t i = 0; i < batch; ++i) generators.push_back(generator_of(options.seed, first + i));
    for (int64_t position = 0; position + 1 < options.length; ++position) {
      if (stop.stop_requested()) return absl::CancelledError("writing text was stopped");
      torch::Tensor stream = embed(ends, rows.narrow(1, position, 1)).squeeze(1);  // [batch, dim]
      for (size_t i = 0; i < blocks.size(); ++i) {
        stream = blocks[i]->decode(stream, rope, options.compute, caches[i]);
      }
      torch::Tensor uniform = torch::empty({batch}, torch::kFloat64);
      for (int64_t i = 0; i < batch; ++i) {
        uniform.data_ptr<double>()[i] = draw(generators[static_cast<size_t>(i)]);
      }
      const torch::Tensor next = rows.select(1, position + 1);  // [batch]
      const bool greedy = position < options.greedy_tokens;
      head.for_each_chunk(final_hidden(ends, stream), [&](int64_t at, const torch::Tensor& log_p) {
        const int64_t count = log_p.size(0);
        next.narrow(0, at, count)
            .copy_(greedy ? log_p.argmax(1)
                          : sample(log_p, options.temperature, uniform.narrow(0, at, count)));
      });
      progress((static_cast<double>(first) + static_cast<double>(batch) *
                                                 static_cast<double>(position + 1) /
                                                 static_cast<double>(options.length - 1)) /
               static_cast<double>(options.sequences));
    }
  }
  return text;
}

}  // namespace qaas
