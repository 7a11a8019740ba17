CREATE TABLE IF NOT EXISTS dataset_run_items_rmt
(
    id String,
    project_id String,
    dataset_run_id String,
    dataset_item_id String,
    dataset_id String,
    trace_id String,
    observation_id Nullable(String),
    error Nullable(String),
    created_at DateTime64(3) DEFAULT now(),
    updated_at DateTime64(3) DEFAULT now(),
    dataset_run_name String,
    dataset_run_description Nullable(String),
    dataset_run_metadata Map(LowCardinality(String), String),
    dataset_run_created_at DateTime64(3),
    dataset_item_input Nullable(String) CODEC(ZSTD(3)),
    dataset_item_expected_output Nullable(String) CODEC(ZSTD(3)),
    dataset_item_metadata Map(LowCardinality(String), String),
    event_ts DateTime64(3),
    is_deleted UInt8,
    dataset_item_version Nullable(DateTime64(3)),
    INDEX idx_dataset_item dataset_item_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_trace_id trace_id TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(event_ts, is_deleted)
ORDER BY (project_id, dataset_id, dataset_run_id, id)
SETTINGS index_granularity = 8192
