"""Sagas: processes over several steps and contexts, which give commands, time out and compensate."""

from chassis.sagas.deciding import SAGAS, SagaUnknown
from chassis.sagas.declaring import (
    Answered,
    Came,
    Compensate,
    End,
    Give,
    Heard,
    Move,
    Refused,
    Request,
    Saga,
    Started,
    TimedOut,
)
from chassis.sagas.peers import HttpPeer, LocalPeer, Peer, PeerUnanswered
from chassis.sagas.role import Opened, SagasRole, peers_of
from chassis.sagas.running import TIMEOUT, Sagas, SagaShown, saga_handler, saga_timer

__all__ = [
    "SAGAS",
    "TIMEOUT",
    "Answered",
    "Came",
    "Compensate",
    "End",
    "Give",
    "Heard",
    "HttpPeer",
    "LocalPeer",
    "Move",
    "Opened",
    "Peer",
    "PeerUnanswered",
    "Refused",
    "Request",
    "Saga",
    "SagaShown",
    "SagaUnknown",
    "Sagas",
    "SagasRole",
    "Started",
    "TimedOut",
    "peers_of",
    "saga_handler",
    "saga_timer",
]
