#pragma once

#include "server/bounded_pool.h"
#include "server/download_artifact.h"
#include "server/event_hub.h"
#include "server/folder_registry.h"
#include "server/server_metrics.h"
#include "storage/artifacts/artifact_store.h"
#include "storage/database/job_store.h"

namespace qaas {

/// What the services work with. All of it outlives them and is thread-safe.
struct ServiceContext {
  JobStore& jobs;
  const FolderRegistry& folders;
  ArtifactStore& artifacts;
  EventHub& events;
  BoundedPool& sql;   ///< calls that use the database
  BoundedPool& disk;  ///< reads of artifact files
  DownloadSlots& downloads;
  ServerMetrics& metrics;
};

}  // namespace qaas
