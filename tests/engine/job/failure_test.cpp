#include "workers/engine/job/failure.h"

#include <new>
#include <stdexcept>

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using testing::StatusIs;

TEST(Failure, EveryStatusHasAnExitCodeAndAClass) {
  struct Row {
    absl::Status status;
    ExitCode exit_code;
    v1::FailureClass failure_class;
  };
  for (const Row& row : {
           Row{absl::InvalidArgumentError("m"), kExitCaller, v1::FAILURE_CLASS_CALLER},
           Row{absl::NotFoundError("m"), kExitCaller, v1::FAILURE_CLASS_CALLER},
           Row{absl::FailedPreconditionError("m"), kExitCaller, v1::FAILURE_CLASS_CALLER},
           Row{absl::ResourceExhaustedError("m"), kExitResource, v1::FAILURE_CLASS_RESOURCE},
           Row{absl::CancelledError("m"), kExitStopped, v1::FAILURE_CLASS_INFRASTRUCTURE},
           Row{absl::UnavailableError("m"), kExitInternal, v1::FAILURE_CLASS_INFRASTRUCTURE},
           Row{absl::InternalError("m"), kExitInternal, v1::FAILURE_CLASS_INTERNAL},
           Row{absl::DataLossError("m"), kExitInternal, v1::FAILURE_CLASS_INTERNAL},
       }) {
    EXPECT_EQ(exit_code_of(row.status), row.exit_code) << row.status;
    const v1::Failure failure = failure_of(row.status);
    EXPECT_EQ(failure.failure_class(), row.failure_class) << row.status;
    EXPECT_EQ(failure.code(), absl::StatusCodeToString(row.status.code()));
    EXPECT_EQ(failure.message(), "m");
  }
  EXPECT_EQ(exit_code_of(absl::OkStatus()), kExitOk);
}

TEST(Failure, ExceptionsOfMemoryAreAResourceAndTheRestADefect) {
  EXPECT_THAT(status_of(std::bad_alloc()),
              StatusIs(absl::StatusCode::kResourceExhausted, ::testing::HasSubstr("memory")));
  EXPECT_THAT(status_of(std::runtime_error("[enforce fail at alloc_cpu.cpp:66] . "
                                           "DefaultCPUAllocator: can't allocate memory: you tried "
                                           "to allocate 4096 bytes.\nframe #0")),
              StatusIs(absl::StatusCode::kResourceExhausted, ::testing::HasSubstr("4096 bytes.")));
  EXPECT_THAT(status_of(std::runtime_error("CUDA out of memory. Tried to allocate 2.00 GiB")),
              StatusIs(absl::StatusCode::kResourceExhausted, ::testing::HasSubstr("2.00 GiB")));
  EXPECT_THAT(status_of(std::runtime_error("shape mismatch\nframe #0: somewhere")),
              StatusIs(absl::StatusCode::kInternal, "shape mismatch"));
}

}  // namespace
}  // namespace qaas
