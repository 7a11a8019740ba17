CREATE TABLE IF NOT EXISTS event_log_index
(
    project_id LowCardinality(String),
    entity UInt64,
    segment String,
    event_ts DateTime64(3),
    is_deleted UInt8
)
ENGINE = ReplacingMergeTree(event_ts, is_deleted)
ORDER BY (entity, segment)
SETTINGS index_granularity = 128
