"""Scenario `code-review-agent`: runs of minutes to hours with nested spans, tools and big JSON inputs."""

import json
from collections.abc import Mapping
from datetime import datetime
from random import Random

from langfuse_export.demo import patches
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
from langfuse_export.demo.models import CLAUDE_SONNET, GPT_LARGE, GPT_REASONING, Model

MODELS: tuple[tuple[Model, float], ...] = ((CLAUDE_SONNET, 60), (GPT_REASONING, 25), (GPT_LARGE, 15))
ENVIRONMENTS = (("production", 60), ("ci", 35), ("development", 5))
Message = Mapping[str, object]
TAGS = ("review", "security", "large-diff", "draft", "bot:renovate")
TOOL_DEFINITIONS = {
    name: json.dumps({"description": description, "parameters": {"type": "object", "properties": properties}})
    for name, description, properties in (
        ("git_diff", "Diff between two commits", {"base": {"type": "string"}, "head": {"type": "string"}}),
        (
            "run_tests",
            "Run the tests below a path",
            {"path": {"type": "string"}, "seed": {"type": "integer"}},
        ),
        ("search_code", "Regular expression search, e.g. \\bcharge\\(", {"pattern": {"type": "string"}}),
    )
}
_LARGE_DIFF_LINES = 5600


OPINIONS = Opinions(patches.COMMENTS, patches.CORRECTIONS)


def build(rng: Random, start: datetime, *, large: bool) -> Trace:
    """One review of a pull request, from the diff to the summary."""
    repository = rng.choice(patches.REPOSITORIES)
    number, title = rng.randrange(100, 4000), rng.choice(patches.TITLES)
    paths = rng.sample(patches.FILES, rng.choice((1, 1, 2, 2, 3)))
    root = new_span(rng, None, "AGENT", "review-pull-request", start, start)
    lines = _LARGE_DIFF_LINES if large else rng.randint(8, 60)
    diffs = {path: patches.diff(rng, path, max(8, lines // len(paths))) for path in paths}
    request = {"repository": repository, "number": number, "title": title, "head": hex_id(rng, 160)}
    root.input = text(rng, {"pull_request": {**request, "files": diffs if large else paths}})
    spans = [_fetch(rng, root, request, diffs)]
    for path, diff in diffs.items():
        spans += _review_file(rng, root, spans[-1].end, path, diff)
    at = max(span.end for span in spans)
    if rng.random() < 0.04:
        spans.append(_approval(rng, root, at))
        at = spans[-1].end
    spans.append(_summarize(rng, root, at, request))
    _close(rng, root, spans)
    return Trace(
        id=hex_id(rng, 128),
        name="code-review",
        start=start,
        user_id=rng.choice(("ci", "amélie", "björn", "陽菜", "noor", "sam")),
        session_id=f"{repository}#{number}" if rng.random() < 0.8 else None,
        environment=weighted(rng, ENVIRONMENTS),
        release=hex_id(rng, 28),
        version="0.9",
        tags=sorted({repository.split("/")[1], *rng.sample(TAGS, rng.randint(0, 2))}),
        input=root.input,
        output=root.output,
        metadata={"repository": repository, "pull_request": str(number), "title": title},
        life=root.life,
        public=rng.random() < 0.02,
        spans=[root, *spans],
    )


def _close(rng: Random, root: Span, spans: list[Span]) -> None:
    """End the root after its last child; an agent reports its start, too, so most roots come twice."""
    root.end = after(rng, max(span.end for span in spans), 0.01, 0.4)
    root.life = life(rng, root.start, root.end, eager=0.7)
    root.output = spans[-1].output
    root.metadata = {
        "thread.id": str(rng.getrandbits(40)),
        "plan": text(rng, [span.name for span in spans] * 3),
    }
    if spans[-1].level == "ERROR":
        root.level, root.status = "ERROR", spans[-1].status


def _fetch(rng: Random, root: Span, request: dict[str, object], diffs: dict[str, str]) -> Span:
    start = after(rng, root.start, 0.01, 0.2)
    span = new_span(rng, root.id, "TOOL", "git_diff", start, after(rng, start, 0.2, 4))
    span.input = text(rng, {"base": "main", "head": request["head"]})
    span.output = text(rng, [{"path": path, "changed_lines": len(diff)} for path, diff in diffs.items()])
    span.metadata = {"git.version": "2.51.0"}
    return span


def _review_file(rng: Random, root: Span, at: datetime, path: str, diff: str) -> list[Span]:
    """A span per file; below it the generation and, in some, the tool it called and a debug event."""
    start = after(rng, at, 0.01, 0.1)
    outer = new_span(rng, root.id, "SPAN", "review-file", start, start)
    generation = _generation(rng, outer, start, "propose-comments", _messages(path, diff))
    spans = [generation]
    if generation.level == "ERROR":
        outer.level, outer.status = "WARNING", f"no review of {path}: {generation.status}"
    elif rng.random() < 0.4:
        spans += _test_run(rng, outer, generation, path)
    else:
        generation.output = text(rng, {"role": "assistant", "content": text(rng, _comments(rng, path))})
    if rng.random() < 0.1:
        spans.append(_cache_miss(rng, outer))
    outer.end = after(rng, max(span.end for span in spans), 0.001, 0.02)
    outer.life = life(rng, outer.start, outer.end)
    outer.input = text(rng, {"path": path, "language": path.rsplit(".", 1)[-1]})
    outer.output = generation.output
    return [outer, *spans]


def _messages(path: str, diff: str) -> list[Message]:
    content = [
        {"type": "text", "text": f"Review {path}."},
        {"type": "document", "source": {"media_type": "text/x-diff", "data": diff}, "cache_control": None},
    ]
    return [{"role": "system", "content": patches.INSTRUCTIONS}, {"role": "user", "content": content}]


def _comments(rng: Random, path: str) -> dict[str, object]:
    found = rng.sample(patches.FINDINGS, rng.randint(0, 3))
    comments = [
        {"path": path, "line": rng.randrange(1, 400), "severity": severity, "body": body}
        for severity, body in found
    ]
    return {"comments": comments}


def _generation(rng: Random, parent: Span, at: datetime, name: str, messages: list[Message]) -> Span:
    start = after(rng, at, 0.001, 0.05)
    seconds = min(rng.lognormvariate(3.6, 1.0), 2400)
    span = new_span(
        rng, parent.id, "GENERATION", name, start, after(rng, start, seconds * 0.8, seconds * 1.2)
    )
    span.input = text(rng, {"messages": messages, "stream": True, "tool_choice": {"type": "auto"}})
    span.tool_definitions = TOOL_DEFINITIONS
    span.metadata = {"gen_ai.operation.name": "chat", "request.id": f"req_{hex_id(rng, 96)}"}
    if rng.random() < 0.025:
        fail(rng, span, patches.FAILURES[:2], patches.STACK_TRACE)
    tokens = (len(span.input) // 4 + rng.randrange(200, 3000), rng.randrange(60, 900))
    prompt = ("review/file", 4) if name == "propose-comments" else ("review/summary", 2)
    span.call = new_call(rng, weighted(rng, MODELS), span, prompt, tokens)
    return span


def _test_run(rng: Random, outer: Span, generation: Span, path: str) -> list[Span]:
    calls = [
        ToolCall(
            f"toolu_{hex_id(rng, 96)}", "run_tests", {"path": f"tests/{path}", "seed": rng.randrange(9999)}
        ),
        ToolCall(
            f"toolu_{hex_id(rng, 96)}", "search_code", {"pattern": r'\bcharge\(.*"\u0041"', "glob": "**/*.py"}
        ),
    ][: rng.choice((1, 1, 2))]
    generation.output = text(
        rng,
        {
            "role": "assistant",
            "content": "Ich prüfe die Tests …",
            "tool_calls": [call.message() for call in calls],
            "comments": _comments(rng, path)["comments"],
        },
    )
    add_tools(generation, TOOL_DEFINITIONS, calls)
    return [_tool_span(rng, outer, generation.end, call) for call in calls]


def _tool_span(rng: Random, outer: Span, at: datetime, call: ToolCall) -> Span:
    start = after(rng, at, 0.01, 0.1)
    span = new_span(rng, outer.id, "TOOL", call.name, start, after(rng, start, 1, 240))
    span.input = text(rng, call.arguments)
    passed = rng.randrange(5, 300)
    span.output = text(
        rng,
        {
            "exit_code": 0,
            "stdout": f"\x1b[32m{passed} passed\x1b[0m in {rng.uniform(1, 60):.2f}s\n✓ grüße ✓ 在庫\n",
            "report": json.dumps({"passed": passed, "note": "JSON in JSON, “ä” escaped"}),
        },
    )
    if rng.random() < 0.06:
        fail(rng, span, patches.FAILURES[2:], patches.STACK_TRACE)
    return span


def _cache_miss(rng: Random, outer: Span) -> Span:
    at = after(rng, outer.start, 0.001, 0.3)
    span = new_span(rng, outer.id, "EVENT", "cache-miss", at, at)
    span.level = "DEBUG"
    span.input = text(rng, {"key": f"diff:{hex_id(rng, 64)}"})
    return span


def _approval(rng: Random, root: Span, at: datetime) -> Span:
    """A run that waits for a person takes up to three hours, far longer than an export lags behind."""
    span = new_span(rng, root.id, "SPAN", "wait-for-approval", at, after(rng, at, 1200, 10_800))
    span.output = text(rng, {"approved_by": "陽菜", "comment": "passt 👍"})
    return span


def _summarize(rng: Random, root: Span, at: datetime, request: dict[str, object]) -> Span:
    messages: list[Message] = [
        {"role": "system", "content": "Summarize the review in at most five sentences."},
        {"role": "user", "content": text(rng, request)},
    ]
    span = _generation(rng, root, at, "summarize-review", messages)
    if span.level != "ERROR":
        verdict = rng.choice(("approve", "comment", "request_changes"))
        body = " ".join(body for _, body in rng.sample(patches.FINDINGS, 3))
        span.output = text(rng, {"verdict": verdict, "summary": body})
    return span
