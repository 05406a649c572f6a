"""Banks' names of columns in Chinese, German, English and a few more languages, from which a mapping is
proposed."""

from typing import Final

WORDS: Final[dict[str, str]] = {
    "booked_on": "交易日期|记账日期|入账日期|记帐日期|交易日|日期|交易时间|记账日|入账时间|buchungstag|buchungsdatum|buchung|datum"
    "|booking date|transaction date|posting date|posted date|post date|date posted|date|trans date|txn date|booked"
    "|date de comptabilisation|date operation|date d'operation|fecha|fecha operacion|data|data contabile|data operacji"
    "|datum zauctovani|datum provedeni|boekdatum|bokforingsdatum|dato|kirjauspaiva",
    "value_on": "起息日|起息日期|valuta|wertstellung|valutadatum|wertstellungstag|value date|date de valeur|fecha valor"
    "|data valuta|data waluty|datum valuty|rentedatum|valutadato",
    "amount": "交易金额|金额|发生额|交易额|人民币金额|betrag|umsatz|amount|transaction amount|montant|importe|importo|kwota"
    "|castka|bedrag|belopp|belob|umsatzbetrag|betrag in eur",
    "credit": "收入|存入|贷方发生额|贷方金额|收入金额|存入金额|贷方|转入金额|haben|gutschrift|credit|credits|credit amount"
    "|deposit|deposits|money in|paid in|paid in amount|cr amount|avoir|abono|haber|avere|uznania|prijem|bij",
    "debit": "支出|取出|借方发生额|借方金额|支出金额|支取|借方|转出金额|soll|belastung|lastschrift|debit|debits|debit amount"
    "|withdrawal|withdrawals|money out|paid out|dr amount|debet|cargo|debe|dare|obciazenia|vydaj|af",
    "balance_after": "余额|账户余额|帐户余额|本次余额|可用余额|saldo|kontostand|balance|running balance|closing balance|solde|zustatek"
    "|saldo nach buchung|balance after",
    "text": "摘要|交易摘要|用途|附言|备注|说明|verwendungszweck|buchungstext|text|bezeichnung|description|narrative|narration"
    "|details|particulars|memo|label|libelle|concepto|descrizione|opis|popis|omschrijving|transaction details|reference text",
    "core_transaction_id": "流水号|交易流水号|交易流水|核心流水号|凭证号|transaction id|transaction reference|reference number"
    "|referenznummer|transaktionsnummer|bank reference|txn id|trans id|id transakce|transactie id|ref|reference|referenz",
    "account": "账号|卡号|账户|帐号|本方账号|交易账号|konto|kontonummer|iban|account|account number|account no|iban auftragskonto"
    "|numero de compte|cuenta|conto|rachunek|ucet|rekening",
    "currency": "币种|货币|币别|交易币种|wahrung|waehrung|currency|ccy|devise|moneda|divisa|valuta iso|waluta|mena|munt",
    "counterparty_name": "对方户名|对方名称|对方姓名|对手户名|交易对方|beguenstigter|begunstigter|beguenstigter zahlungspflichtiger|empfanger"
    "|auftraggeber|name zahlungsbeteiligter|payee|counterparty|counterparty name|beneficiary|partner|nom|beneficiario",
    "counterparty_account": "对方账号|对方账户|对方帐号|对方卡号|gegenkonto|kontonummer iban|counterparty account|beneficiary account"
    "|iban zahlungsbeteiligter|counter account|payee account",
    "counterparty_bank": "对方行名|对方开户行|对方银行|对方行号|bic|blz|bic swift code|counterparty bank|bank code|swift",
    "branch": "网点|交易网点|交易机构|营业网点|branch|filiale|agence",
    "teller": "柜员|柜员号|操作员|teller",
    "channel": "渠道|交易渠道|channel",
}
DIRECTION: Final = (
    "借贷|借贷标志|收支|收支方向|借贷方向|方向|soll haben|s h|soll haben kennzeichen|debit credit|dr cr|cr dr|d c|type"
    "|transaction type|direction|af bij|sens|收 支"
)
CREDIT_WORDS: Final = frozenset(
    [
        "贷",
        "收",
        "收入",
        "存",
        "转入",
        "H",
        "Haben",
        "C",
        "CR",
        "Cr",
        "Cr.",
        "Credit",
        "CREDIT",
        "credit",
        "+",
        "Bij",
        "K",
        "Gutschrift",
    ]
)
DEBIT_WORDS: Final = frozenset(
    [
        "借",
        "支",
        "支出",
        "取",
        "转出",
        "S",
        "Soll",
        "D",
        "DR",
        "Dr",
        "Dr.",
        "Debit",
        "DEBIT",
        "debit",
        "-",
        "Af",
        "Lastschrift",
    ]
)
TOTALS: Final = (
    "合计", "总计", "小计", "累计", "本页合计", "Summe", "Gesamt", "Gesamtsumme", "Total", "TOTAL", "Totals", "Grand total",
    "Sum", "Somme", "Totale", "Suma", "Razem", "Celkem",
)  # fmt: skip
CURRENCIES: Final = (
    ("€", "EUR"), ("人民币", "CNY"), ("RMB", "CNY"), ("元", "CNY"), ("£", "GBP"), ("¥", "CNY"), ("￥", "CNY"), ("₹", "INR"),
    ("₩", "KRW"), ("₽", "RUB"), ("zł", "PLN"), ("Kč", "CZK"), ("Fr.", "CHF"), ("HK$", "HKD"), ("US$", "USD"), ("$", "USD"),
)  # fmt: skip
