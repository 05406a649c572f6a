"""The library's own published test cases judge our recorder."""

from uuid import UUID, uuid4

import pytest
from chassis.write.store.library import OneRoundTripRecorder
from eventsourcing.tests.persistence import (
    ApplicationRecorderTestCase,
    NonInterleavingNotificationIDsBaseCase,
)
from typing_extensions import override


class _OverOurStore:
    recorder: OneRoundTripRecorder

    @pytest.fixture(autouse=True)
    def over_a_store_of_its_own(self, postgres_url: str, schema: str):  # type: ignore[no-untyped-def]
        self.recorder = OneRoundTripRecorder(postgres_url, schema)
        yield
        self.recorder.close()

    def create_recorder(self) -> OneRoundTripRecorder:
        return self.recorder

    def new_originator_id(self) -> UUID:
        return uuid4()


class TestApplicationRecorder(_OverOurStore, ApplicationRecorderTestCase[OneRoundTripRecorder]):
    @override
    def create_recorder(self) -> OneRoundTripRecorder:
        return self.recorder

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestNonInterleavingIds(_OverOurStore, NonInterleavingNotificationIDsBaseCase):
    @override
    def create_recorder(self) -> OneRoundTripRecorder:
        return self.recorder


del ApplicationRecorderTestCase, NonInterleavingNotificationIDsBaseCase
