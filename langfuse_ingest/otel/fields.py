"""Which span attributes mean what: names in the order in which they are looked at.

The names are those that Langfuse 4.16 reads: its own SDKs', OpenTelemetry's conventions for generative AI,
OpenInference's, and those of frameworks that people use with it.
"""

USER = ("langfuse.user.id", "user.id", "langfuse.observation.metadata.langfuse_user_id")
USER += ("langfuse.trace.metadata.langfuse_user_id", "ai.telemetry.metadata.userId")
SESSION = ("langfuse.session.id", "session.id", "gen_ai.conversation.id")
SESSION += (
    "langfuse.observation.metadata.langfuse_session_id",
    "langfuse.trace.metadata.langfuse_session_id",
)
SESSION += ("ai.telemetry.metadata.sessionId",)
TAGS = ("langfuse.trace.tags", "langfuse.tags", "langfuse.observation.metadata.langfuse_tags")
TAGS += ("langfuse.trace.metadata.langfuse_tags", "ai.telemetry.metadata.tags", "tag.tags")
PUBLIC = ("langfuse.trace.public", "langfuse.public")
ENVIRONMENT = ("langfuse.environment", "deployment.environment.name", "deployment.environment")
NAME = ("gen_ai.tool.name", "genkit:name", "logfire.msg", "ai.toolCall.name")
MODEL = ("langfuse.observation.model.name", "gen_ai.response.model", "ai.model.id", "gen_ai.request.model")
MODEL += ("llm.response.model", "llm.model_name", "model")
PROMPT_NAME = ("langfuse.observation.prompt.name", "langfuse.prompt.name")
PROMPT_VERSION = ("langfuse.observation.prompt.version", "langfuse.prompt.version")
COMPLETION_START = "langfuse.observation.completion_start_time"
LEVEL = "langfuse.observation.level"
STATUS_MESSAGE = "langfuse.observation.status_message"
TYPE = "langfuse.observation.type"
AS_ROOT = "langfuse.internal.as_root"
APP_ROOT = "langfuse.internal.is_app_root"
USAGE = "langfuse.observation.usage_details"
COST = "langfuse.observation.cost_details"
MODEL_PARAMETERS = "langfuse.observation.model.parameters"
TRACE_NAME = "langfuse.trace.name"

# Input and output, as pairs; the first pair of which either is there counts.
PAYLOADS = (
    ("langfuse.observation.input", "langfuse.observation.output"),
    ("langfuse.trace.input", "langfuse.trace.output"),
    ("genkit:input", "genkit:output"),
    ("ai.prompt.messages", "ai.response.text"),
    ("ai.prompt", "ai.response.object"),
    ("ai.toolCall.args", "ai.toolCall.result"),
    ("gcp.vertex.agent.llm_request", "gcp.vertex.agent.llm_response"),
    ("lk.user_transcript", "lk.response.text"),
    ("mlflow.spanInputs", "mlflow.spanOutputs"),
    ("traceloop.entity.input", "traceloop.entity.output"),
    ("input.value", "output.value"),
    ("input", "output"),
    ("pydantic_ai.all_messages", "final_result"),
    ("tool_arguments", "tool_response"),
    ("gen_ai.input.messages", "gen_ai.output.messages"),
    ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
)
# The same as lists that are spread over indexed attributes, such as gen_ai.prompt.0.content.
SPREAD_PAYLOADS = (
    ("gen_ai.prompt.", "gen_ai.completion."),
    ("llm.input_messages.", "llm.output_messages."),
)

PARAMETER_PREFIXES = ("gen_ai.request.", "llm.invocation_parameters.")
OBSERVATION_METADATA = ("langfuse.observation.metadata", "langfuse.metadata", "ai.telemetry.metadata")
TRACE_METADATA = "langfuse.trace.metadata"
USAGE_PREFIXES = ("gen_ai.usage.", "llm.token_count.")
COSTS = ("gen_ai.usage.cost", "llm.cost.total")

# Counts under the names that instrumentations use; the kinds must not overlap, so details are taken off.
USAGE_ALIASES = {
    "prompt_tokens": "input",
    "input_tokens": "input",
    "prompt": "input",
    "completion_tokens": "output",
    "output_tokens": "output",
    "completion": "output",
    "total_tokens": "total",
    "total": "total",
    "cache_read.input_tokens": "input_cached_tokens",
    "cache_read_input_tokens": "input_cached_tokens",
    "cache_read_tokens": "input_cached_tokens",
    "details.cache_read_tokens": "input_cached_tokens",
    "details.cache_read_input_tokens": "input_cached_tokens",
    "prompt_details.cache_read": "input_cached_tokens",
    "input_cached_tokens": "input_cached_tokens",
    "cache_creation.input_tokens": "input_cache_creation",
    "cache_creation_input_tokens": "input_cache_creation",
    "cache_write_tokens": "input_cache_creation",
    "details.cache_write_tokens": "input_cache_creation",
    "details.cache_creation_input_tokens": "input_cache_creation",
    "prompt_details.cache_write": "input_cache_creation",
    "input_cache_creation": "input_cache_creation",
    "reasoning.output_tokens": "output_reasoning_tokens",
    "completion_details.reasoning": "output_reasoning_tokens",
    "completion_details.audio": "output_audio_tokens",
}

LEVELS = {"TRACE": "DEBUG", "VERBOSE": "DEBUG", "DEBUG": "DEBUG"}
LEVELS |= dict.fromkeys(("INFO", "LOG", "NOTICE", "OK", "SUCCESS", "DEFAULT"), "DEFAULT")
LEVELS |= {"WARN": "WARNING", "WARNING": "WARNING"}
LEVELS |= dict.fromkeys(("FATAL", "CRITICAL", "ERROR"), "ERROR")

OBSERVATION_TYPES = frozenset(
    {
        "SPAN",
        "EVENT",
        "GENERATION",
        "AGENT",
        "TOOL",
        "CHAIN",
        "RETRIEVER",
        "EVALUATOR",
        "EMBEDDING",
        "GUARDRAIL",
    }
)
OPENINFERENCE_KIND = "openinference.span.kind"
OPENINFERENCE_TYPES = {"LLM": "GENERATION", "RERANKER": "RETRIEVER"}
OPERATION = "gen_ai.operation.name"
OPERATION_TYPES = dict.fromkeys(
    ("chat", "completion", "text_completion", "generate_content", "generate"), "GENERATION"
)
OPERATION_TYPES |= {"embeddings": "EMBEDDING", "invoke_agent": "AGENT", "create_agent": "AGENT"}
OPERATION_TYPES |= {"execute_tool": "TOOL"}
TOOL_MARKS = ("ai.toolCall.name", "gen_ai.tool.name", "gen_ai.tool.call.id")
# These steps carry the model of what they call, which counts it itself.
WITHOUT_MODEL = frozenset({"invoke_agent", "agent_step"})
