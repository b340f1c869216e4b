#pragma once

#include <string>
#include <vector>

#include "qaas/v1/event.pb.h"
#include "qaas/v1/forecast.pb.h"
#include "qaas/v1/job.pb.h"

/// Jobs, forecasts and events as text for people. Pure functions; text that came from a server is
/// escaped. Results end with "\n" unless said otherwise.
namespace qaas::cli {

/// "queued", "running", ...; "state 17" for one this program does not know.
std::string state_words(v1::JobState state);
std::string phase_words(v1::Phase phase);
/// "EfficientQAT", "round-to-nearest", "GPTQ", "distillation QAT".
std::string method_words(v1::Method method);
/// "4 bits, groups of 128, symmetric"; "whole rows" for -1.
std::string grid_words(const v1::WeightQuantization& weights);

/// One line per job: name, state, method, grid, model, progress, age from create_time to `now`
/// (seconds since 1970).
std::string job_list_text(const std::vector<v1::Job>& jobs, int64_t now);

/// Everything a person wants to know of one job: what it is, how far it is, how it ended, and the
/// result table of a finished one or the forecast of another.
std::string job_text(const v1::Job& job);

/// The table of a finished job: original, round-to-nearest and quantized model side by side,
/// predicted beside measured error, sizes, time, and the remarks needed to read them.
std::string result_text(const v1::Job& job);

/// What is predicted, by which law, and what to think of it.
std::string forecast_text(const v1::Forecast& forecast);

/// "training blocks: [###---] 42 %, block 3/6, step 120/256, loss 0.0123, 1.2k tokens/s, 1m 20s
/// left", bar of `bar_width` cells, none for 0. One line without its end.
std::string progress_line(const v1::Progress& progress, int bar_width);

/// One line about an event, without its end; empty for progress and for kinds this program does not
/// know.
std::string event_line(const v1::JobEvent& event);

}  // namespace qaas::cli
