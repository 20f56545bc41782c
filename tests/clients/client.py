"""A client by openapi-python-client: opens, deposits, pages and follows the feed."""

import sys
from uuid import uuid4

from passbook_client import Client
from passbook_client.api.audit import list_events
from passbook_client.api.commands import create_deposit, create_withdrawal, open_account
from passbook_client.api.queries import list_transactions
from passbook_client.models import (
    AccountOpenedEvent,
    AccountReceipt,
    CreateWithdrawalProblem,
    CreateWithdrawalProblemCode,
    EventPage,
    MoneyDepositedEvent,
    MoveMoney,
    OpenAccount,
    TransactionPage,
)
from passbook_client.types import UNSET


def amount_of(event):
    match event:
        case AccountOpenedEvent():
            return event.data.initial_deposit
        case MoneyDepositedEvent():
            return event.data.amount
    raise TypeError(type(event))


client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
opened = open_account.sync(
    client=client, body=OpenAccount(currency="EUR", initial_deposit=100), idempotency_key=str(uuid4())
)
assert isinstance(opened, AccountReceipt), opened
account_id, position = opened.account_id, opened.position

for amount in (1, 2, 3):
    deposited = create_deposit.sync(account_id, client=client, body=MoveMoney(amount=amount))
    assert isinstance(deposited, AccountReceipt), deposited
    position = deposited.position

refused = create_withdrawal.sync(account_id, client=client, body=MoveMoney(amount=1000))
assert isinstance(refused, CreateWithdrawalProblem), refused
assert refused.code is CreateWithdrawalProblemCode.INSUFFICIENT_FUNDS, refused
assert refused.account_id == account_id, refused

amounts, after = [], UNSET
while after is not None:
    page = list_transactions.sync(account_id, client=client, limit=2, after=after, min_position=position)
    assert isinstance(page, TransactionPage), page
    amounts += [row.amount for row in page.data]
    after = page.next_
assert amounts == [3, 2, 1, 100], amounts

followed, cursor = [], UNSET
while len(followed) < 4:
    page = list_events.sync(client=client, limit=3, after=cursor)
    assert isinstance(page, EventPage), page
    followed += [amount_of(event) for event in page.data if event.aggregate_id == account_id]
    cursor = page.next_
assert followed == [100, 1, 2, 3], followed
