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
GENKIT_NAME, GENKIT_INPUT, GENKIT_OUTPUT = "genkit:name", "genkit:input", "genkit:output"
GENKIT_MESSAGES = {"input": "messages", "output": "message"}  # in the two
NAME = ("gen_ai.tool.name", GENKIT_NAME, "logfire.msg", "ai.toolCall.name")
MODEL = ("langfuse.observation.model.name", "gen_ai.response.model", "ai.model.id", "gen_ai.request.model")
MODEL += ("llm.response.model", "llm.model_name", "model")
PROMPT_NAME = ("langfuse.observation.prompt.name", "langfuse.prompt.name")
PROMPT_VERSION = ("langfuse.observation.prompt.version", "langfuse.prompt.version")
AI_PROMPT = "ai.telemetry.metadata.langfusePrompt"
MS_TO_FIRST_CHUNK = ("ai.response.msToFirstChunk", "ai.stream.msToFirstChunk")
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
EXPERIMENT = {
    "experiment_id": "langfuse.experiment.id",
    "experiment_name": "langfuse.experiment.name",
    "experiment_description": "langfuse.experiment.description",
    "experiment_dataset_id": "langfuse.experiment.dataset.id",
    "experiment_item_id": "langfuse.experiment.item.id",
    "experiment_item_root_span_id": "langfuse.experiment.item.root_observation_id",
    "experiment_item_expected_output": "langfuse.experiment.item.expected_output",
}
EXPERIMENT_METADATA = {
    "experiment_metadata": "langfuse.experiment.metadata",
    "experiment_item_metadata": "langfuse.experiment.item.metadata",
}
EXPERIMENT_ITEM_VERSION = "langfuse.experiment.item.version"

# Names of input and of output, by convention; the first convention of which there is any counts. Of several
# names the first counts, and one that says no more than {} only if it is alone.
Payload = tuple[tuple[str, ...], tuple[str, ...]]
PAYLOADS_BEFORE_EVENTS: tuple[Payload, ...] = (
    (("langfuse.observation.input",), ("langfuse.observation.output",)),
    ((GENKIT_INPUT,), (GENKIT_OUTPUT,)),
    (
        ("ai.prompt.messages", "ai.prompt", "ai.toolCall.args"),
        (
            "ai.response.text",
            "ai.result.text",
            "ai.toolCall.result",
            "ai.response.object",
            "ai.result.object",
            "ai.response.toolCalls",
            "ai.result.toolCalls",
        ),
    ),
    (
        ("flue.turn.input", "flue.tool.arguments", "flue.task.prompt", "flue.workflow.payload"),
        (
            "flue.turn.output",
            "flue.tool.result",
            "flue.task.result",
            "flue.operation.result",
            "flue.workflow.result",
        ),
    ),
)
EVENTS = "events"
PAYLOADS: tuple[Payload, ...] = (
    (
        ("gcp.vertex.agent.llm_request", "gcp.vertex.agent.tool_call_args"),
        ("gcp.vertex.agent.llm_response", "gcp.vertex.agent.tool_response"),
    ),
    (("prompt",), ("all_messages_events",)),
    (
        ("lk.input_text", "lk.user_transcript", "lk.chat_ctx"),
        ("lk.function_tool.output", "lk.response.text"),
    ),
    (("mlflow.spanInputs",), ("mlflow.spanOutputs",)),
    (("traceloop.entity.input",), ("traceloop.entity.output",)),
    (("input.value",), ("output.value",)),
    (("input",), ("output",)),
    (("pydantic_ai.all_messages",), ("final_result",)),
    (("tool_arguments",), ("tool_response",)),
)
# As one attribute, or spread over indexed ones, such as gen_ai.prompt.0.content.
SPREAD_PAYLOADS = (
    ("gen_ai.prompt", "gen_ai.completion"),
    ("llm.input_messages", "llm.output_messages"),
)
PAYLOADS_AFTER_SPREAD: tuple[Payload, ...] = (
    (("gen_ai.input.messages",), ("gen_ai.output.messages",)),
    (("gen_ai.tool.call.arguments",), ("gen_ai.tool.call.result",)),
)
WITH_INSTRUCTIONS = frozenset({"gen_ai.input.messages", "pydantic_ai.all_messages"})
SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
TRACE_PAYLOAD = ("langfuse.trace.input", "langfuse.trace.output")
# What tells of the whole trace, besides its metadata.
TRACE_ATTRIBUTES = frozenset((*USER, *SESSION, *TAGS, *PUBLIC, TRACE_NAME, *TRACE_PAYLOAD))
# What is input or output is no metadata, even where another convention has been believed.
_SPREAD = tuple(name for pair in SPREAD_PAYLOADS for name in pair)
PAYLOAD_NAMES = frozenset({*TRACE_PAYLOAD, *_SPREAD, EVENTS, SYSTEM_INSTRUCTIONS}).union(
    *({*inputs, *outputs} for inputs, outputs in PAYLOADS_BEFORE_EVENTS + PAYLOADS + PAYLOADS_AFTER_SPREAD)
)
PAYLOAD_PREFIXES = tuple(f"{name}." for name in _SPREAD)
AI_TEXT, AI_TOOL_CALLS = "ai.response.text", "ai.response.toolCalls"

AI_SCOPE = "ai"
AI_PARAMETERS = {
    "maxSteps": ("ai.settings.maxSteps",),
    "toolChoice": ("ai.prompt.toolChoice",),
    "maxTokens": ("gen_ai.request.max_tokens",),
    "finishReason": ("gen_ai.response.finish_reasons", "gen_ai.finishReason"),
    "system": ("gen_ai.system", "ai.model.provider"),
    "maxRetries": ("ai.settings.maxRetries",),
    "mode": ("ai.settings.mode",),
    "temperature": ("gen_ai.request.temperature",),
    "service_tier": ("gen_ai.request.service_tier",),
}
PARAMETERS = ("llm.invocation_parameters", "model_config")
PARAMETER_PREFIXES = ("gen_ai.request.", "llm.invocation_parameters.")
OF_TRACE = "langfuse.trace.metadata"
_OF_BOTH = ("langfuse.metadata", "ai.telemetry.metadata")
OBSERVATION_METADATA = ("langfuse.observation.metadata", *_OF_BOTH)
TRACE_METADATA = (OF_TRACE, *_OF_BOTH)
# These have fields of their own.
NO_METADATA = frozenset(f"ai.telemetry.metadata.{name}" for name in ("userId", "sessionId", "tags"))
NO_METADATA |= {AI_PROMPT}
USAGE_PREFIXES = ("gen_ai.usage.", "llm.token_count.")
# Details of the counts above, under names of the Vercel AI SDK, which repeats the counts in outer spans.
AI_USAGE = {
    "ai.usage.cachedInputTokens": "input_cached_tokens",
    "ai.usage.reasoningTokens": "output_reasoning_tokens",
    "ai.usage.tokens": "total",
}
# The same in the JSON that providers add, by provider, there or below, under these names one after the other.
AI_PROVIDER_NESTING = ("usage", "cache_creation")
AI_PROVIDER = "ai.response.providerMetadata"
AI_PROVIDER_USAGE = {
    "openai": {"cachedPromptTokens": "input_cached_tokens", "reasoningTokens": "output_reasoning_tokens"},
    "anthropic": {
        "cache_read_input_tokens": "input_cached_tokens",
        "cache_creation_input_tokens": "input_cache_creation",
        "ephemeral_5m_input_tokens": "input_cache_creation_5m",
        "ephemeral_1h_input_tokens": "input_cache_creation_1h",
    },
    "bedrock": {
        "cacheReadInputTokens": "input_cache_read",
        "cacheWriteInputTokens": "input_cache_write",
        "cacheCreationInputTokens": "input_cache_creation",
    },
}
# The same in what Genkit's models put out, under `usage`.
GENKIT_USAGE = {
    "inputTokens": "input",
    "outputTokens": "output",
    "totalTokens": "total",
    "cachedContentTokens": "input_cached_tokens",
    "thoughtsTokens": "output_reasoning_tokens",
}
# The same in what models of Google's Agent Development Kit answer.
ADK_RESPONSE = "gcp.vertex.agent.llm_response"
ADK_USAGE, ADK_CACHED = "usage_metadata", "cached_content_token_count"
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
    "reasoning_tokens": "output_reasoning_tokens",
    "thoughts_tokens": "output_reasoning_tokens",
    "details.reasoning_tokens": "output_reasoning_tokens",
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
# Python SDKs up to this version call a generation a span.
LANGFUSE_SDK = "langfuse-sdk"
LAST_WITHOUT_GENERATIONS = (3, 3)
OF_GENERATIONS = (
    MODEL[0],
    COST,
    USAGE,
    COMPLETION_START,
    MODEL_PARAMETERS,
    PROMPT_NAME[0],
    PROMPT_VERSION[0],
)
OPENINFERENCE_KIND = "openinference.span.kind"
OPENINFERENCE_TYPES = {"LLM": "GENERATION", "RERANKER": "RETRIEVER"}
OPERATION = "gen_ai.operation.name"
OPERATION_TYPES = dict.fromkeys(
    ("chat", "completion", "text_completion", "generate_content", "generate"), "GENERATION"
)
OPERATION_TYPES |= {"embeddings": "EMBEDDING", "invoke_agent": "AGENT", "create_agent": "AGENT"}
OPERATION_TYPES |= {"execute_tool": "TOOL"}
# Kinds of actions of Genkit; others, such as flows, are spans like any other.
GENKIT_SUBTYPE = "genkit:metadata:subtype"
GENKIT_TYPES = {
    "model": "GENERATION",
    "tool": "TOOL",
    "tool.v2": "TOOL",
    "embedder": "EMBEDDING",
    "retriever": "RETRIEVER",
    "evaluator": "EVALUATOR",
    "agent": "AGENT",
}
TOOL_MARKS = ("ai.toolCall.name", "gen_ai.tool.name", "gen_ai.tool.call.id")
# Steps of the Vercel AI SDK that call a model; the spans around them name the model as well.
AI_OPERATION = ("operation.name", "ai.operationId")
AI_OPERATION_TYPES = {
    "ai.generateText.doGenerate": "GENERATION",
    "ai.streamText.doStream": "GENERATION",
    "ai.generateObject.doGenerate": "GENERATION",
    "ai.streamObject.doStream": "GENERATION",
    "ai.embed.doEmbed": "EMBEDDING",
    "ai.embedMany.doEmbed": "EMBEDDING",
}
# What these are is in the names of their spans alone.
FLUE_TYPES = {"flue.tool": "TOOL", "flue.task": "AGENT"}
LIVEKIT_SCOPE = "livekit-agents"
LIVEKIT_TYPES = {"agent_turn": "AGENT", "start_agent_activity": "AGENT", "function_tool": "TOOL"}
LIVEKIT_DEBUG = frozenset(
    {
        "agent_speaking",
        "drain_agent_activity",
        "eou_detection",
        "llm_fallback_adapter",
        "llm_request_run",
        "on_enter",
        "on_exit",
        "start_agent_activity",
        "tts_fallback_adapter",
        "tts_node",
        "tts_request",
        "tts_request_run",
        "tts_stream_adapter",
        "user_speaking",
    }
)
MARKS_OF_GENERATIONS = tuple(name for name in MODEL if name not in ("ai.model.id", "llm.response.model"))
# These steps carry the model of what they call, which counts it itself.
WITHOUT_MODEL = frozenset({"invoke_agent", "agent_step"})
