"""Source text of the review scenario: files, lines of diffs, findings and failures."""

from random import Random

REPOSITORIES = ("nordlicht/checkout", "nordlicht/warehouse", "nordlicht/ios-app", "nordlicht/übersetzer")
TITLES = (
    "Retry idempotent requests with jitter",
    "Grüße im Newsletter korrekt kodieren",
    "在庫の同期を1時間ごとに変更",
    "إصلاح اتجاه النص في الفاتورة",
    r"Parser: keep \uXXXX escapes of quoted JSON as they are",
    "🔥 hotfix: double charge on timeout",
    "Drop Python 3.10",
)
FILES = (
    "checkout/payments/retry.py",
    "checkout/api/webhooks.py",
    "warehouse/sync/inventory.py",
    "web/src/cart/Cart.tsx",
    "newsletter/templates/grüße.html",
    "parser/escapes.rs",
    "infra/k8s/worker.yaml",
)
LINES = (
    "def charge(order: Order, *, attempts: int = 3) -> Receipt:",
    "    for attempt in range(attempts):",
    "        delay = min(2**attempt, 30) * random.uniform(0.5, 1.0)",
    '        log.info("charge", order_id=order.id, amount=order.total, währung=order.currency)',
    "    except (Timeout, ConnectionError) as error:",
    "        raise PaymentError(order.id) from error",
    'const label = t("cart.total", { amount: formatCurrency(total, locale) });',
    "export const Cart = ({ items }: Props) => (items.length > 0 ? <List items={items} /> : <Empty />);",
    r"""    assert decode('"\u0041\\u0042"') == 'A\\u0042'""",
    r"""    let escaped = text.replace("\\", "\\\\").replace("\"", "\\\"");""",
    r'  "pattern": "^[A-Z]:\\\\(?:[^\\\\/:*?\"<>|\u0000-\u001f]+\\\\)*$",',
    "# 在庫が負になった場合は再計算する",
    "    // لا ترسل البريد قبل تأكيد الدفع",
    "    resources: { requests: { cpu: 250m, memory: 512Mi }, limits: { memory: 1Gi } }",
    "-- SELECT id, status FROM orders WHERE status = 'pending' FOR UPDATE SKIP LOCKED",
    "",
)
FINDINGS = (
    ("blocking", "The retry also repeats requests that are not idempotent; a timeout can charge twice."),
    ("blocking", r"`\u0041` is decoded twice here: first by `json.loads`, then by `unicode_escape`."),
    ("suggestion", "Jitter of ±50 % is good; cap the total time at the caller's deadline."),
    ("suggestion", "„Grüße“ wird doppelt maskiert, wenn das Template schon HTML liefert."),
    ("nit", "コメントは英語に統一しませんか?"),
    ("nit", "`attempts` could be a constant of the module."),
    ("question", "Why FOR UPDATE if only one worker runs? 🤔"),
    ("praise", "Nice test for the negative stock 👏"),
)
COMMENTS = (
    "All three blocking findings are real.",
    "Der zweite Befund ist ein Fehlalarm: `charge` ist idempotent.",
    "行番号がずれています。",
    r"Right about `\u0041`, wrong about the line 🙃",
    None,
    None,
    None,
)
CORRECTIONS = (
    '{"verdict": "request_changes", "summary": "A timeout can charge twice."}',
    r'{"verdict": "comment", "summary": "Say \\u0041, not \u0041: the text is decoded twice."}',
    '{"verdict": "approve", "summary": "在庫の計算は正しいです。"}',
)
INSTRUCTIONS = (
    "You review pull requests of a shop. Report defects, not taste. Cite file and line. Classify each "
    "finding as blocking, suggestion, nit, question or praise. Do not repeat what a linter reports. "
    'Answer as JSON: {"comments": [{"path": str, "line": int, "severity": str, "body": str}]}.'
)
FAILURES = (
    "529 Overloaded: the model is currently overloaded, please try again",
    "context_length_exceeded: 212340 tokens > 200000 maximum",
    "ToolError: run_tests exited with status 137 (out of memory)",
)
STACK_TRACE = """Traceback (most recent call last):
  File "/srv/agent/loop.py", line 203, in step
    message = await self.model.messages.create(**self.request(state))
  File "/srv/agent/models/anthropic.py", line 77, in create
    raise classify(error) from error
agent.errors.ProviderError"""


def diff(rng: Random, path: str, lines: int) -> str:
    """A unified diff of about 65 characters a line."""
    signs = rng.choices((" ", "+", "-"), (60, 25, 15), k=lines)
    body = (f"{sign}{line}" for sign, line in zip(signs, rng.choices(LINES, k=lines), strict=True))
    first = rng.randrange(1, 400)
    header = f"--- a/{path}\n+++ b/{path}\n@@ -{first},{lines} +{first},{lines} @@\n"
    return header + "\n".join(body)
