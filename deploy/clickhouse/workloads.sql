-- Shares the server's threads between workloads; run once, as a user that may CREATE WORKLOAD and
-- CREATE RESOURCE. The profiles of users.d/langfuse.xml name these workloads; before they exist, that
-- changes nothing. Numbers of threads are per core of the server.

CREATE RESOURCE IF NOT EXISTS cpu (MASTER THREAD, WORKER THREAD);

-- Shares only count below a bound: twice the cores is what ClickHouse itself allows all queries together.
CREATE OR REPLACE WORKLOAD all SETTINGS max_concurrent_threads_ratio_to_cores = 2;

-- Queries of everybody without a profile, such as Langfuse's user before it has got one.
CREATE OR REPLACE WORKLOAD default IN all SETTINGS weight = 8;

CREATE OR REPLACE WORKLOAD interactive IN all SETTINGS weight = 8;

CREATE OR REPLACE WORKLOAD ingestion IN all SETTINGS weight = 4;

-- However many exports run, they have half a thread per core together.
CREATE OR REPLACE WORKLOAD export IN all SETTINGS weight = 1, max_concurrent_threads_ratio_to_cores = 0.5;
