"""Scores of every data type for a finished trace, from end users, evaluators and annotators."""

from datetime import datetime
from random import Random

from langfuse_export.demo.draw import after, uuid
from langfuse_export.demo.entities import Life, Opinions, Score, Trace

_SENTIMENTS = ("positive", "neutral", "negative", "gemischt")


def add_scores(rng: Random, trace: Trace, opinions: Opinions, *, at_start: bool) -> None:
    """Give the trace about 1.25 scores; with `at_start` one of them has the very instant of the trace."""
    answered = trace.spans[-1]
    if at_start or rng.random() < 0.12:
        score = _score(rng, trace.start, "guardrail-passed", "BOOLEAN", "API")
        trace.scores.append(_judged(score, 1.0, "True"))
    if rng.random() < 0.4:
        score = _score(rng, after(rng, answered.end, 1, 90), "groundedness", "NUMERIC", "EVAL")
        score.span_id, score.value = answered.id, rng.betavariate(8, 2)
        score.metadata = {"judge": "gpt-4o-2024-11-20", "rationale": rng.choice(opinions.comments) or "n/a"}
        trace.scores.append(score)
    if rng.random() < 0.25:
        solved = rng.random() < 0.8
        score = _score(rng, after(rng, answered.end, 20, 5400), "resolved", "BOOLEAN", "API")
        trace.scores.append(_judged(score, float(solved), str(solved)))
    if rng.random() < 0.25:
        score = _score(rng, after(rng, answered.end, 5, 60), "sentiment", "CATEGORICAL", "EVAL")
        trace.scores.append(_judged(score, 0.0, rng.choice(_SENTIMENTS)))
    _add_annotations(rng, trace, opinions)
    _add_totals(rng, trace)
    for score in trace.scores:
        score.comment = rng.choice(opinions.comments)


def _add_annotations(rng: Random, trace: Trace, opinions: Opinions) -> None:
    end = trace.spans[0].end
    if rng.random() < 0.08:
        score = _score(rng, after(rng, end, 600, 20_000), "reviewer-note", "TEXT", "ANNOTATION")
        note = rng.choice([comment for comment in opinions.comments if comment])
        trace.scores.append(_judged(score, 0.0, note))
    if rng.random() < 0.05:
        score = _score(rng, after(rng, end, 600, 20_000), "output", "CORRECTION", "ANNOTATION")
        score.long_text = rng.choice(opinions.corrections)
        trace.scores.append(score)


def _add_totals(rng: Random, trace: Trace) -> None:
    """Scores of the session and, with the first item, of the dataset run."""
    end = trace.spans[0].end
    if trace.session_id and rng.random() < 0.04:
        score = _score(rng, after(rng, end, 300, 4000), "csat", "NUMERIC", "API")
        score.session_id, score.value = trace.session_id, float(rng.randint(1, 5))
        trace.scores.append(score)
    if trace.experiment and trace.start == trace.experiment.run_start:
        score = _score(rng, after(rng, end, 3600, 4000), "pass-rate", "NUMERIC", "EVAL")
        score.dataset_run_id, score.value = trace.experiment.run_id, round(rng.uniform(0.8, 1), 4)
        trace.scores.append(score)


def _judged(score: Score, value: float, label: str) -> Score:
    score.value, score.text = value, label
    return score


def _score(rng: Random, at: datetime, name: str, data_type: str, source: str) -> Score:
    """A score that arrives at once; one in twelve is changed minutes later."""
    arrived = after(rng, at, 0.2, 3)
    changed = rng.random() < 0.08
    score_life = Life(after(rng, arrived, 60, 3000), arrived) if changed else Life(arrived)
    return Score(uuid(rng), at, name, data_type, source, score_life)
