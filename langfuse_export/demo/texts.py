"""Phrases of the support scenario: questions in many scripts, answers, articles and failures."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question of a customer with its answer; `topic` picks the articles."""

    locale: str
    topic: str
    question: str
    answer: str


EXCHANGES: tuple[Exchange, ...] = (
    Exchange(
        "de-DE",
        "refund",
        "Guten Tag, ich möchte meine Bestellung zurückgeben – die Größe stimmt nicht. Wie läuft das ab?",
        "Gern! Sie können die Ware innerhalb von 30 Tagen zurückschicken. Das Rücksendeetikett finden "
        "Sie unter „Meine Bestellungen“. Die Erstattung dauert höchstens fünf Werktage.",
    ),
    Exchange(
        "de-AT",
        "delivery",
        "Mein Päckchen hängt seit Dienstag in Österreich fest. Können's bitte nachschauen? "
        "Liefergebühr war 4,90 €.",
        "Das Paket liegt im Verteilzentrum Graz und wird morgen zugestellt. Die Gebühr von 4,90 € "
        "erstatten wir.",
    ),
    Exchange(
        "de-DE",
        "login",
        "Ich komme nicht mehr in mein Konto, obwohl das Passwort stimmt. Zwei-Faktor-Code wird abgelehnt 😤",
        "Bitte prüfen Sie die Uhrzeit Ihres Telefons: weicht sie ab, passen die Codes nicht. "
        "Alternativ hilft einer Ihrer Wiederherstellungscodes.",
    ),
    Exchange(
        "ja-JP",
        "delivery",
        "注文した商品がまだ届きません。配送状況を確認していただけますか?",
        "ご不便をおかけして申し訳ございません。お荷物は現在、東京の配送センターにございます。"
        "明日の午前中にお届けの予定です。",
    ),
    Exchange(
        "ja-JP",
        "invoice",
        "領収書の宛名を「株式会社さくら商事」に変更できますか?インボイス制度の番号も必要です。",
        "はい、可能です。「請求と支払い」→「請求書」から宛名を編集してください。"
        "登録番号は自動で記載されます。",
    ),
    Exchange(
        "ar-EG",
        "refund",
        "مرحبًا، وصل المنتج مكسورًا وأريد استرداد المبلغ. رقم الطلب هو ٧٧٤١٢.",
        "نعتذر عن ذلك. بدأنا إجراءات الاسترداد، وسيصل المبلغ إلى بطاقتك خلال خمسة أيام عمل.",
    ),
    Exchange(
        "ar-SA",
        "login",
        "لا أستطيع تسجيل الدخول إلى حسابي، تظهر رسالة «كلمة المرور غير صحيحة» كل مرة 🙏",
        "يمكنك إعادة تعيين كلمة المرور من صفحة الدخول، وسنرسل لك رابطًا صالحًا لمدة ٣٠ دقيقة.",
    ),
    Exchange(
        "en-GB",
        "delivery",
        "where is my parcel?? 📦📦 it says delivered but there's nothing here 👨‍👩‍👧‍👦🏠",
        "Sorry about that! The courier left it with a neighbour (flat 3). If it isn't there, reply "
        "here and I'll open a claim 🕵️‍♀️",
    ),
    Exchange(
        "en-US",
        "invoice",
        "I was charged twice for May: $49.00 on the 2nd and again on the 3rd. Please fix this.",
        "I see both charges. The second was a retry after a timeout; I have refunded $49.00 to your card.",
    ),
    Exchange("en-US", "login", "😭😭😭", "I'm sorry this is frustrating. Could you tell me what happened?"),
    Exchange(
        "hi-IN",
        "refund",
        "मेरा रिफंड अभी तक नहीं आया है। कृपया स्थिति बताइए।",
        "आपका रिफंड कल जारी कर दिया गया है और तीन कार्य दिवसों में खाते में आ जाएगा।",
    ),
    Exchange(
        "zh-CN",
        "invoice",
        "请问可以开具增值税专用发票吗?公司名称是“北京星河科技有限公司”。",
        "可以的。请在“账单”页面填写税号和开户行信息,发票将在三个工作日内发送到您的邮箱。",
    ),
    Exchange(
        "ru-RU",
        "login",
        "Не приходит письмо для сброса пароля. Проверил папку «Спам» — пусто.",
        "Мы отправили письмо ещё раз. Если оно не придёт за 10 минут, напишите нам адрес для проверки.",
    ),
    Exchange(
        "es-MX",
        "delivery",
        "¿Cuánto tarda el envío a Mérida? Necesito el paquete antes del sábado 🎂",
        "El envío exprés llega en 48 horas. ¡Si lo pide hoy antes de las 15:00, llegará el viernes!",
    ),
    Exchange(
        "fr-FR",
        "refund",
        "Le café que j’ai reçu est périmé… Puis-je être remboursé ? (commande nº 1 204)",
        "Bien sûr : le remboursement de 12,50 € vient d’être lancé. Toutes nos excuses !",
    ),
)

# Text about escapes, and JSON in JSON: whoever decodes \u sequences once too often, breaks these.
TRICKY: tuple[Exchange, ...] = (
    Exchange(
        "en-US",
        "api",
        r"Your API turns \u0041 into A. How do I send the six characters \u0041 so that they stay as "
        r"they are?",
        r"Escape the backslash: write \\u0041 inside the JSON string. A single \u0041 is the letter A "
        r"by definition.",
    ),
    Exchange(
        "de-DE",
        "api",
        r'Unser Webhook liefert {"body":"{\"subject\":\"Gr\\u00fc\\u00dfe\",\"quote\":\"say '
        r'\\u0022hi\\u0022\"}"} – ist das doppelt kodiert?',
        r"Ja: „body“ ist ein JSON-Text im JSON-Text. Nach dem ersten Lesen steht dort noch \u00fc statt ü.",
    ),
    Exchange(
        "en-GB",
        "api",
        "The import fails for C:\\users\\u0041lice\\new\\table.csv, the log shows \\u0000 and a "
        "tab:\t<- here\nand a second line\r\nwith CRLF.",
        'Paths need doubled backslashes in JSON: "C:\\\\users\\\\u0041lice\\\\new\\\\table.csv".',
    ),
    Exchange(
        "ja-JP",
        "api",
        r"絵文字が \ud83d\ude80 のように保存されます。🚀 に戻す方法はありますか?",
        r"\ud83d\ude80 はサロゲートペアです。JSON として一度だけ読み込むと 🚀 になります。",
    ),
)

ARTICLES: dict[str, tuple[str, ...]] = {
    "refund": (
        "Returns are accepted within 30 days of delivery. The label is created in the order history; "
        "refunds reach the original means of payment within five working days. Opened food and "
        "engraved goods are excluded.",
        "Rückgabe: Artikel müssen ungetragen sein. Größentausch ist kostenlos, solange der Vorrat reicht. "
        "Bei Teilrückgabe wird der Gutschein anteilig verrechnet.",
    ),
    "delivery": (
        "Carriers scan a parcel up to five times. Without a scan for three working days, support opens "
        "a trace with the carrier; the customer gets a replacement after another two days.",
        "配送について: 通常2〜4日でお届けします。離島・一部地域は追加で1〜3日かかります。"
        "再配達はマイページから依頼できます。",
    ),
    "login": (
        "Codes of the second factor depend on the clock of the phone. After five wrong codes the "
        "account is locked for 15 minutes. Recovery codes work once.",
        "الدخول بخطوتين: تُقفل المحاولة بعد خمسة رموز خاطئة لمدة ١٥ دقيقة، ويمكن استخدام رموز "
        "الاسترداد مرة واحدة.",
    ),
    "invoice": (
        "Invoices can be re-issued with another recipient within the fiscal year. VAT numbers are "
        "checked against VIES; a reverse charge note is added for companies in other EU countries.",
    ),
    "api": (
        r"Strings of the API are JSON: \n, \t, \" and \uXXXX are escapes. Clients must decode them "
        r"exactly once.",
        r'Example of a nested payload: {"raw": "{\"name\": \"Zo\\u00eb\"}"}. Do not search and replace '
        r"escapes.",
    ),
}

SYSTEM_PROMPT = (
    "You are the support assistant of Nordlicht, a shop for outdoor gear and coffee. Answer in the "
    "language of the customer, in at most four sentences. Use only the articles below and the tools. "
    "Never promise a date that no article or tool gives. If the customer is upset, say sorry once. "
    "Refuse questions about other customers. Amounts carry their currency; times are local to the "
    "customer."
)

ORDER_STATES = ("shipped", "in_transit", "delivered", "returned", "refunded", "lost")
PRODUCTS = (
    "Zelt „Föhn 2“",
    "エスプレッソ豆 250g",
    "Trail shoes, size 43½",
    "حقيبة ظهر ٣٠ لترًا",
    "Headlamp 400 lm 🔦",
)

FAILURES = (
    "429 Too Many Requests: rate limit reached for requests per minute",
    "504 Gateway Timeout: no answer from the order service within 30000 ms",
    "content_filter: the response was filtered by the provider's policy",
    "ConnectionResetError: [Errno 104] Connection reset by peer",
)

STACK_TRACE = """Traceback (most recent call last):
  File "/app/support/handlers.py", line 118, in handle_message
    reply = await self.answer(conversation, articles)
  File "/app/support/answer.py", line 64, in answer
    response = await client.chat.completions.create(**request)
  File "/usr/lib/python3.12/site-packages/openai/resources/chat/completions.py", line 2583, in create
    return await self._post("/chat/completions", body=body, stream=stream)"""

COMMENTS = (
    "Answer is grounded in the articles.",
    "Der Ton ist freundlich, aber die Frist fehlt.",
    "回答は正確ですが、敬語が不自然です。",
    "Says “five days” where the article says five *working* days 🤏",
    None,
    None,
    None,
)

CORRECTIONS = (
    "Bitte senden Sie die Ware innerhalb von 30 Tagen zurück; die Erstattung dauert fünf Werktage.",
    r"Write \\u0041 in the JSON text; after decoding once, the six characters \u0041 remain.",
    "お荷物は明日の午前中に届きます。",
)
