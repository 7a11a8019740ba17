"""Scenario `support-bot`: short RAG chats in many languages, in sessions, with tool calls and guardrails."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from random import Random

from langfuse_export.demo import texts
from langfuse_export.demo.draw import (
    ToolCall,
    add_tools,
    after,
    fail,
    hex_id,
    life,
    new_call,
    new_span,
    text,
    weighted,
)
from langfuse_export.demo.entities import Opinions, Span, Trace
from langfuse_export.demo.models import CLAUDE_HAIKU, EMBEDDING, GEMINI_FLASH, GPT_LARGE, GPT_MINI, Model
from langfuse_export.demo.texts import Exchange

MODELS: tuple[tuple[Model, float], ...] = (
    (GPT_MINI, 50),
    (CLAUDE_HAIKU, 25),
    (GEMINI_FLASH, 15),
    (GPT_LARGE, 10),
)
ENVIRONMENTS = (("production", 80), ("staging", 15), ("development", 5))
TAGS = ("chat", "rag", "vip", "web", "ios", "android", "übersetzt", "エスカレーション")
LOOKUP_ORDER = {
    "description": "Look up an order by its number",
    "parameters": {
        "type": "object",
        "properties": {"order_id": {"type": "string", "pattern": r"^\d{5}$"}, "locale": {"type": "string"}},
        "required": ["order_id"],
    },
}
REFUND = {
    "description": "Refund an order; amount in minor units (e.g. cents, ¥)",
    "parameters": {
        "type": "object",
        "properties": {"order_id": {"type": "string"}, "amount": {"type": "integer"}},
    },
}
TOOLS = {"lookup_order": LOOKUP_ORDER, "refund_order": REFUND}
Message = Mapping[str, object]
_LOG_LINES = 4000
TOOL_DEFINITIONS = {name: json.dumps(tool, ensure_ascii=False) for name, tool in TOOLS.items()}


OPINIONS = Opinions(texts.COMMENTS, texts.CORRECTIONS)


def build(rng: Random, start: datetime, *, large: bool) -> Trace:
    """One message of a customer and everything the bot does to answer it."""
    exchange = rng.choice(texts.TRICKY if rng.random() < 0.12 else texts.EXCHANGES)
    attachment = _log_file(rng) if large else None
    root = new_span(rng, None, "CHAIN", "handle-message", start, start)
    spans, reply = _answer(rng, root, exchange, attachment)
    root.input = _message(rng, exchange, attachment)
    root.output = text(rng, {"role": "assistant", "content": reply}) if reply else ""
    root.metadata = {"channel": rng.choice(("web", "ios", "android")), "locale": exchange.locale}
    if any(span.level == "ERROR" for span in spans):
        root.level, root.status = "WARNING", "answered with the fallback text"
    user = f"user-{int(400 * rng.random() ** 2):04d}"
    return Trace(
        id=hex_id(rng, 128),
        name="support-chat",
        start=start,
        user_id=user if rng.random() < 0.95 else None,
        session_id=f"chat-{start:%Y%m%d}-{user}-{start.hour // 4}" if rng.random() < 0.9 else None,
        environment=weighted(rng, ENVIRONMENTS),
        release=f"2.{start.isocalendar().week}.{start.weekday()}",
        version="2",
        tags=sorted(rng.sample(TAGS, rng.randint(0, 3))),
        input=root.input,
        output=root.output,
        metadata={"tenant": rng.choice(("de", "jp", "mena", "us")), "ab_test": rng.choice("AB")},
        life=root.life,
        public=rng.random() < 0.01,
        bookmarked=rng.random() < 0.02,
        spans=[root, *spans],
    )


def _message(rng: Random, exchange: Exchange, attachment: str | None) -> str:
    if attachment:
        return text(
            rng, {"message": exchange.question, "attachments": [{"name": "app.log", "text": attachment}]}
        )
    if rng.random() < 0.3:
        return exchange.question
    return text(rng, {"message": exchange.question, "locale": exchange.locale})


def _answer(rng: Random, root: Span, exchange: Exchange, attachment: str | None) -> tuple[list[Span], str]:
    """The children of the root in their order, and the reply; stretches the root to their end."""
    spans = _retrieval(rng, root, exchange)
    messages = _history(rng, exchange, attachment)
    generation = _generation(rng, root, spans[0].end, messages)
    spans.append(generation)
    if generation.level != "ERROR" and exchange.topic in ("refund", "delivery") and rng.random() < 0.35:
        spans += _tool_round(rng, root, generation, exchange, messages)
    elif generation.level != "ERROR":
        _finish(rng, generation, exchange.answer)
    failed = spans[-1].level == "ERROR"
    root.end = after(rng, spans[-1].end, 0.002, 0.05)
    root.life = life(rng, root.start, root.end)
    return spans, "" if failed else exchange.answer


def _retrieval(rng: Random, root: Span, exchange: Exchange) -> list[Span]:
    start = after(rng, root.start, 0.001, 0.02)
    span = new_span(rng, root.id, "RETRIEVER", "search-articles", start, after(rng, start, 0.03, 0.4))
    found = [
        {"id": f"{exchange.topic}-{number}", "score": round(rng.uniform(0.5, 0.95), 6), "text": article}
        for number, article in enumerate(texts.ARTICLES[exchange.topic])
    ]
    span.input = text(rng, {"query": exchange.question, "top_k": 4, "filter": {"topic": [exchange.topic]}})
    span.output = text(rng, found)
    span.metadata = {"index": "articles-v7", "retrieved_text": " ".join(str(hit["text"]) for hit in found)}
    if rng.random() < 0.8:
        return [span]
    embedding = new_span(rng, span.id, "EMBEDDING", "embed-question", start, after(rng, start, 0.01, 0.03))
    embedding.input = text(rng, exchange.question)
    embedding.call = new_call(rng, EMBEDDING, embedding, None, (len(exchange.question) // 3 + 1, 0))
    return [span, embedding]


def _history(rng: Random, exchange: Exchange, attachment: str | None) -> list[Message]:
    articles = "\n\n".join(texts.ARTICLES[exchange.topic])
    messages: list[Message] = [
        {"role": "system", "content": f"{texts.SYSTEM_PROMPT}\n\n# Articles\n{articles}"}
    ]
    for _ in range(rng.choice((0, 0, 1, 2))):
        earlier = rng.choice(texts.EXCHANGES)
        messages.append({"role": "user", "content": earlier.question})
        messages.append({"role": "assistant", "content": earlier.answer})
    parts: list[dict[str, object]] = [{"type": "text", "text": exchange.question}]
    if attachment:
        parts.append({"type": "text", "text": attachment})
    messages.append({"role": "user", "content": parts})
    return messages


def _generation(rng: Random, root: Span, at: datetime, messages: Sequence[Message]) -> Span:
    start = after(rng, at, 0.001, 0.01)
    span = new_span(rng, root.id, "GENERATION", "answer", start, after(rng, start, 0.6, 6))
    tools = [{"type": "function", "function": {"name": name, **tool}} for name, tool in TOOLS.items()]
    span.input = text(rng, {"messages": messages, "tools": tools})
    span.tool_definitions = TOOL_DEFINITIONS
    span.metadata = {"attempt": "1", "region": rng.choice(("eu-central-1", "ap-northeast-1"))}
    if rng.random() < 0.03:
        fail(rng, span, texts.FAILURES, texts.STACK_TRACE)
    _call(rng, span, 40)
    return span


def _call(rng: Random, span: Span, output_tokens: int) -> None:
    prompt = ("support/answer", 11 + span.start.day % 3)
    tokens = (len(span.input) // 4, output_tokens)
    span.call = new_call(rng, weighted(rng, MODELS), span, prompt, tokens)


def _finish(rng: Random, span: Span, answer: str) -> None:
    span.output = text(rng, {"role": "assistant", "content": answer})
    _call(rng, span, len(answer) // 3)


def _tool_round(
    rng: Random, root: Span, generation: Span, exchange: Exchange, messages: Sequence[Message]
) -> list[Span]:
    """The tool the model asked for, and the second generation that sees its result."""
    order = f"{rng.randrange(10_000, 99_999)}"
    call = ToolCall(f"call_{hex_id(rng, 96)}", "lookup_order", {"order_id": order, "locale": exchange.locale})
    request = {"role": "assistant", "content": None, "tool_calls": [call.message()]}
    generation.output = text(rng, request)
    add_tools(generation, TOOL_DEFINITIONS, [call])
    start = after(rng, generation.end, 0.001, 0.01)
    tool = new_span(rng, root.id, "TOOL", call.name, start, after(rng, start, 0.05, 1.5))
    tool.input = text(rng, call.arguments)
    tool.output = text(
        rng,
        {
            "order_id": order,
            "state": rng.choice(texts.ORDER_STATES),
            "items": [{"title": rng.choice(texts.PRODUCTS), "price": rng.randrange(900, 30_000) / 100}],
            "updated": (start - timedelta(hours=rng.randrange(1, 90))).isoformat(),
        },
    )
    if rng.random() < 0.06:
        fail(rng, tool, texts.FAILURES[1:2], texts.STACK_TRACE)
    result = {"role": "tool", "tool_call_id": call.id, "content": tool.output or tool.status}
    second = _generation(rng, root, tool.end, [*messages, request, result])
    if second.level != "ERROR":
        _finish(rng, second, exchange.answer)
    return [tool, second]


def _log_file(rng: Random) -> str:
    """About 400 KB of log lines, as a customer attaches them."""
    levels = rng.choices(("INFO", "DEBUG", "WARN", "ERROR"), (70, 20, 8, 2), k=_LOG_LINES)
    return "\n".join(
        f"2026-01-{rng.randint(1, 28):02d}T{rng.randint(0, 23):02d}:14:07Z {level:5} "
        f"Gerät „{rng.choice(texts.PRODUCTS)}“ state={hex_id(rng, 64)} path=C:\\u0041pp\\log"
        for level in levels
    )
