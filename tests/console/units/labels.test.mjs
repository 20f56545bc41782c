import assert from 'node:assert/strict';
import test from 'node:test';
import { amountOf, eventDetails, eventLabel, isDebit, transactionLabel } from '../../../console/labels.js';

const KINDS = { opening_deposit: false, deposit: false, withdrawal: true, transfer_in: false, transfer_out: true, capture: true, reversal_in: false, reversal_out: true };

test('every kind of transaction has a label and a direction', () => {
  for (const [kind, isOut] of Object.entries(KINDS)) {
    assert.notEqual(transactionLabel(kind), kind);
    assert.equal(isDebit(kind), isOut, kind);
  }
});

test('the sign of an event is the direction of its money', () => {
  const signs = {
    AccountOpened: '+', MoneyDeposited: '+', MoneyWithdrawn: '−', TransferSent: '−', TransferReceived: '+', HoldCaptured: '−',
    HoldPlaced: undefined, HoldReleased: undefined,
  };
  for (const [type, sign] of Object.entries(signs)) {
    assert.deepEqual(amountOf({ type, data: { amount: 5, initial_deposit: 5 } }), sign ? { minor: 5, sign } : { minor: 5 }, type);
    assert.notEqual(eventLabel(type), type);
  }
  for (const [effect, sign] of [['credit', '+'], ['debit', '−']]) {
    assert.deepEqual(amountOf({ type: 'MovementReversed', data: { amount: 5, effect } }), { minor: 5, sign });
  }
  assert.equal(amountOf({ type: 'LimitsSet', data: { overdraft: 5 } }), null);
  assert.equal(amountOf({ type: 'AccountOpened', data: { initial_deposit: 0 } }), null);
});

test('a reversal names the movement that it reverses', () => {
  const data = { reverses_version: 2, effect: 'debit', amount: 3, reason: 'goods returned' };
  assert.equal(eventDetails({ type: 'MovementReversed', data }), 'of transaction 2 goods returned');
});

test('limits of an event are shown in major units', () => {
  const event = { type: 'LimitsSet', data: { overdraft: 20000, out_per_day: 500 } };
  assert.match(eventDetails(event, { code: 'EUR', digits: 2 }), /overdraft €200\.00, out per day €5\.00/);
  assert.equal(eventDetails({ type: 'LimitsSet', data: { overdraft: 0 } }, { code: 'EUR', digits: 2 }), 'none');
});
