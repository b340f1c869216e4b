#include "workers/engine/eval/automatic_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include <absl/strings/str_cat.h>

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

constexpr int kWidths[] = {2, 3, 4, 8};

/// Projections of random size whose loss rises fall with the width, by about a factor of 3 a bit.
std::vector<BitChoices> random_projections(size_t count, uint32_t seed, int64_t unit = 64) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<BitChoices> projections;
  for (size_t p = 0; p < count; ++p) {
    BitChoices choices{.projection = absl::StrCat("p", p),
                       .weights = unit * (1 + static_cast<int64_t>(random() % 5))};
    double rise = uniform(random);
    for (const int bits : kWidths) {
      choices.candidates.push_back(
          {.bits = bits, .size = choices.weights * bits + choices.weights / 2, .loss_rise = rise});
      rise *= 0.2 + 0.3 * uniform(random);
    }
    projections.push_back(std::move(choices));
  }
  return projections;
}

struct Outcome {
  double loss_rise = std::numeric_limits<double>::infinity();
  int64_t size = 0;
};

Outcome outcome_of(const std::vector<BitChoices>& projections,
                   const v1::AutomaticDecision& decision) {
  Outcome outcome{.loss_rise = 0};
  for (const BitChoices& choices : projections) {
    for (const BitCandidate& candidate : choices.candidates) {
      if (candidate.bits != decision.bits().at(choices.projection)) continue;
      outcome.loss_rise += candidate.loss_rise;
      outcome.size += candidate.size;
    }
  }
  return outcome;
}

int64_t weights_of(const std::vector<BitChoices>& projections) {
  int64_t weights = 0;
  for (const BitChoices& choices : projections) weights += choices.weights;
  return weights;
}

/// The smallest sum of rises within the budget, by trying everything.
double exhaustive(const std::vector<BitChoices>& projections, size_t first, double budget) {
  if (budget < 0) return std::numeric_limits<double>::infinity();
  if (first == projections.size()) return 0;
  double best = std::numeric_limits<double>::infinity();
  for (const BitCandidate& candidate : projections[first].candidates) {
    best = std::min(best, candidate.loss_rise +
                              exhaustive(projections, first + 1, budget - double(candidate.size)));
  }
  return best;
}

TEST(ChooseBits, FindsTheBestOfAllSelections) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const auto projections = random_projections(6, seed);
    for (const double average : {2.5, 2.8, 3.7, 5.0, 8.5}) {
      QAAS_ASSERT_OK_AND_ASSIGN(const auto decision, choose_bits(projections, average));
      const double budget = std::floor(average * double(weights_of(projections)));
      EXPECT_NEAR(decision.predicted_loss_rise(), exhaustive(projections, 0, budget), 1e-12)
          << "seed " << seed << ", " << average << " bits";
    }
  }
}

TEST(ChooseBits, KeepsTheBudgetAndBeatsOneWidthForAll) {
  // Sizes without a common divisor, and too large for exact steps.
  for (uint32_t seed = 0; seed < 5; ++seed) {
    auto projections = random_projections(60, seed, 1'000'003);
    for (const double average : {2.5, 3.0, 3.5, 4.5, 7.0}) {
      QAAS_ASSERT_OK_AND_ASSIGN(const auto decision, choose_bits(projections, average));
      const Outcome outcome = outcome_of(projections, decision);
      const auto weights = double(weights_of(projections));
      EXPECT_LE(double(outcome.size), average * weights);
      EXPECT_GT(double(outcome.size), 0.995 * average * weights - 1);
      EXPECT_NEAR(decision.average_bits(), double(outcome.size) / weights, 1e-9);
      EXPECT_NEAR(decision.predicted_loss_rise(), outcome.loss_rise, 1e-9);
      EXPECT_LE(decision.predicted_loss_rise(), decision.uniform_loss_rise());
    }
  }
}

TEST(ChooseBits, ABudgetOfOneWidthExactlyIsNoWorseThanIt) {
  const auto projections = random_projections(30, 3);
  double uniform = 0;
  for (const BitChoices& choices : projections) uniform += choices.candidates[2].loss_rise;
  QAAS_ASSERT_OK_AND_ASSIGN(const auto decision, choose_bits(projections, 4.5));
  EXPECT_NEAR(decision.uniform_loss_rise(), uniform, 1e-12);
  EXPECT_LT(decision.predicted_loss_rise(), uniform);
}

TEST(ChooseBits, TheMostSensitiveProjectionGetsTheMostBits) {
  auto projections = random_projections(4, 1);
  for (BitChoices& choices : projections) {
    choices = {.projection = choices.projection, .weights = 100};
    for (const int bits : kWidths) {
      choices.candidates.push_back({bits, 100 * bits, std::exp2(-2.0 * bits)});
    }
  }
  for (BitCandidate& candidate : projections[2].candidates) candidate.loss_rise *= 100;
  QAAS_ASSERT_OK_AND_ASSIGN(const auto decision, choose_bits(projections, 3.0));
  EXPECT_EQ(decision.bits().at("p2"), 4);
  EXPECT_LE(decision.bits().at("p0"), 3);
}

TEST(ChooseBits, NoiseDoesNotBuyBits) {
  // Measured rises that go up with the width, or below zero, are noise.
  const std::vector<BitChoices> projections = {
      {"noisy", 100, {{2, 200, 0.001}, {3, 300, 0.002}, {4, 400, -0.1}, {8, 800, 0.0015}}},
      {"plain", 100, {{2, 200, 0.5}, {3, 300, 0.1}, {4, 400, 0.05}, {8, 800, 0.001}}}};
  QAAS_ASSERT_OK_AND_ASSIGN(const auto decision, choose_bits(projections, 5));
  EXPECT_EQ(decision.bits().at("noisy"), 2);
  EXPECT_EQ(decision.bits().at("plain"), 8);
  EXPECT_GE(decision.predicted_loss_rise(), 0);
}

TEST(ChooseBits, ABudgetBelowTheNarrowestWidthIsRefused) {
  EXPECT_THAT(choose_bits(random_projections(3, 1), 2.2),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("automatic.average_bits: 2.2, but the narrowest")));
}

v1::SignalReport report_of(const std::vector<std::tuple<std::string, int, double>>& rows) {
  v1::SignalReport report;
  for (const auto& [name, bits, sensitivity] : rows) {
    v1::ProjectionSignal& signal = *report.add_projections();
    signal.set_projection(name);
    signal.set_bits(bits);
    signal.set_loss_sensitivity(sensitivity);
  }
  return report;
}

TEST(ChooseFrozen, TakesTheMostVulnerablePerWeightUntilTheShareIsSpent) {
  const auto report =
      report_of({{"q", 4, 0.1}, {"v", 4, 0.3}, {"o", 4, 0.4}, {"up", 4, 0.6}, {"down", 4, 0.2}});
  const std::map<std::string, int64_t> weights = {
      {"q", 100}, {"v", 50}, {"o", 100}, {"up", 400}, {"down", 350}};
  EXPECT_THAT(choose_frozen(report, 0.15, weights).frozen(), ElementsAre("v", "o"));
  EXPECT_THAT(choose_frozen(report, 0.05, weights).frozen(), ElementsAre("v"));
  EXPECT_THAT(choose_frozen(report, 0.26, weights).frozen(), ElementsAre("v", "o", "q"));
  EXPECT_THAT(choose_frozen(report, 1, weights).frozen(), ElementsAre("v", "o", "up", "q", "down"));
  EXPECT_TRUE(choose_frozen(report, 0, weights).frozen().empty());
}

TEST(ChooseFrozen, LeavesOutWhatIsNotQuantized) {
  const auto report = report_of({{"v", 0, 0.9}, {"o", 4, 0.4}});
  EXPECT_THAT(choose_frozen(report, 1, {{"v", 100}, {"o", 100}}).frozen(), ElementsAre("o"));
}

}  // namespace
}  // namespace qaas
