"""The application service of customer: commands to customers and queries of the views, for HTTP and for
policies alike."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from operator import itemgetter
from typing import Any, ClassVar, Final, NamedTuple, TypeVar, cast
from uuid import UUID, uuid5

import msgspec
from chassis.bulk import Approval, Bulk, Bulkable, listed, starts
from chassis.clock import Clock
from chassis.conditions import Condition, ConditionRefused, Explanation, Step, explained, sentence
from chassis.exports import Exports, releases
from chassis.files import FileKeeper, Limits, Storage
from chassis.lists import ConditionInvalid, Counted, Question, Scope
from chassis.lists.searching import FOUND_MAX, Searches, ValueSearched
from chassis.notices import Inboxes
from chassis.proposals import FourEyes, Proposable, ProposalShown
from chassis.read.documents import ID, Document
from chassis.read.summing import Summed
from chassis.read.versions import versioned
from chassis.sagas import Sagas, saga_handler
from chassis.watching import Hub
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import (
    AlreadyRecorded,
    CommandContext,
    CommandKeyReused,
    Outcome,
    Refusal,
    VersionMismatch,
)
from chassis.write.events import Metadata, event_id
from chassis.write.handling import CommandHandler
from chassis.write.snapshots import Loaded
from chassis.write.store import EventStore
from contracts import purposes
from contracts.identity import ExternalIds, PartyId
from msgspec import structs

from customer.catalogue import CONTEXT
from customer.claims import CLAIMS_MAX, Claims, IdentityNumberKnown, number_claim
from customer.consents import CustomerConsents
from customer.domain.commands import (
    AssignBranch,
    BeginErasurePreparation,
    ChangeContactDetails,
    ConfirmReference,
    CorrectIdentityDetails,
    CustomerCommand,
    DeferErasure,
    Details,
    EditDetails,
    EraseContact,
    EraseCustomer,
    LiftLegalHold,
    LinkReference,
    NameKeyCustomer,
    PlaceLegalHold,
    Reference,
    RegisterCustomer,
    RenameCustomer,
    ResolveContradiction,
    ReviewCustomer,
    TakeOverReference,
    UnlinkReference,
)
from customer.domain.deciding import decide
from customer.domain.erasing import standing
from customer.domain.events import (
    CustomerEvent,
    Detail,
    HeldAccount,
    PartyOfSource,
    ProfileChannel,
    ProfileField,
)
from customer.domain.profile import profile_at
from customer.domain.refusals import (
    BranchUnknownBefore,
    CustomerNotRegistered,
    LegalHoldStands,
    ReferenceNotLinked,
)
from customer.domain.state import Customer
from customer.domain.tag import tag_decider
from customer.domain.tier_rules import tier_rules_decider
from customer.editing import CustomerEdits, DetailsCommand, details_at, details_of
from customer.exports import exportables
from customer.facts import FIELDS
from customer.files import LIMITS, CustomerFiles
from customer.identities import customer_of_command
from customer.lists import BRANCH, CUSTOMERS_LIST, FACTS_LIST
from customer.needs import NEED_DAYS_MAX, CustomerNeeds
from customer.normalising import edited, normalised, normalised_or_kept, spellings
from customer.panorama.schema import HeldLoan, LoansSum, Panorama
from customer.permissions import BULK_APPROVERS, ERASURE_APPROVERS, TIER_APPROVERS
from customer.profiles import CustomerProfiles
from customer.queries import MovementsWanted, Queries
from customer.retention import RETENTION, Kept, Retention, RetentionHolds, kept_until, years_after
from customer.tagging import CHANGE_TAGS, CustomerTags
from customer.tags import Tags
from customer.tier_history import TierHistory
from customer.tier_overrides import OVERRIDE_DAYS_MAX, OVERRIDE_TIER, TierOverrides
from customer.tier_rulebook import ADOPT_TIER_RULES, TierRulebook
from customer.tier_what_if import TierWhatIf

Handler = CommandHandler[CustomerCommand, Customer, CustomerEvent]
T = TypeVar("T")
ERASE: Final = "erase"
LIFT_LEGAL_HOLD: Final = "lift-legal-hold"
ASSIGN_BRANCH: Final = "assign-branch"
_ERASURES: Final = frozenset({"customer-erased", "customer-contact-erased", "erasure-deferred"})
PROPOSALS_LIVE: Final = timedelta(days=14)
STARTS_LIVE: Final = timedelta(days=3)
"""Shorter than for what concerns one customer: who is in the list changes."""
ASSIGNED_ALONE_MAX: Final = 100
"""Customers whom one person may assign to a branch in one run."""
TAGGED_ALONE_MAX: Final = ASSIGNED_ALONE_MAX
"""Customers whose tags one person may change in one run."""


class Erase(msgspec.Struct, frozen=True):
    """Erases the customer that it is proposed for."""


class ErasureShown(msgspec.Struct, frozen=True):
    """How far a customer is erased, what forbids it, and the version of the stream that says so."""

    version: int
    erased: bool
    contact_erased: bool
    rest_from: date | None
    holds: dict[UUID, date | None]


class ToChange(NamedTuple):
    """The customers of a bulk run, what was asked for, and how that reads."""

    customers: AsyncIterator[UUID]
    asked: list[Any]
    words: str


class AccountNotHeld(Refusal):
    """The customer holds no such account, or it is not known yet."""

    code: ClassVar[str] = "account-not-held"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "The customer holds no such account"
    title_zh: ClassVar[str] = "客户没有该账户"


@dataclass(frozen=True, slots=True)
class CustomerService:
    """Commands and queries. Personal values are returned masked."""

    handler: Handler
    store: EventStore
    catalogue: Catalogue
    queries: Queries
    ids: ExternalIds
    clock: Clock
    today: Callable[[], date]
    """The business date now."""
    reached: Callable[[str, int, float], Awaitable[bool]]
    """(context, position, timeout in seconds) -> whether the views show all of the context up to there."""
    business_date: Callable[[datetime], date]
    """The business date of an instant."""
    retention: Retention = RETENTION
    claims_max: int = CLAIMS_MAX
    born_until: Callable[[], date] | None = None
    """The last day on which somebody may have been born, a date of the calendar; by default `today`."""
    hub: Hub | None = None
    """Tells of changes of the facts, in a process where it runs."""
    storage: Storage | None = None
    """Where the content of files lies, in a process that has it."""
    file_limits: Limits = LIMITS
    override_days_max: int = OVERRIDE_DAYS_MAX
    need_days_max: int = NEED_DAYS_MAX
    inboxes: Inboxes | None = None
    """The inboxes of staff and the receipts of notices, in a process that serves them."""
    searches: Searches = field(init=False)
    """Notes searches by personal values."""
    eyes: FourEyes = field(init=False)
    """What needs two persons."""
    bulk: Bulk = field(init=False)
    """What can be given to many customers at once."""
    sagas: Sagas = field(init=False)
    """What takes several steps, to be shown; another role gives its commands."""
    tagging: CustomerTags = field(init=False)
    """The tags, and those of customers."""
    overrides: TierOverrides = field(init=False)
    """The overrides of the tiers of customers."""
    needs: CustomerNeeds = field(init=False)
    """The needs of customers."""
    consents: CustomerConsents = field(init=False)
    """The consents of customers."""
    profiles: CustomerProfiles = field(init=False)
    """The extended profiles of customers."""
    edits: CustomerEdits = field(init=False)
    """Compares an edit with what was changed since its author read the customer."""
    rulebook: TierRulebook = field(init=False)
    """The rules of tiers."""
    tiers: TierHistory = field(init=False)
    """What the tiers of customers were."""
    what_if: TierWhatIf = field(init=False)
    """Candidates for the rules of tiers over what was assessed."""
    exports: Exports = field(init=False)
    """The files that are made of lists; only a process that has a storage makes and gives them."""
    keeper: FileKeeper | None = field(init=False)
    """Keeps files, where there is a storage."""

    def __post_init__(self) -> None:
        assigning = Bulkable(
            AssignBranch,
            self.handler.handle,
            self._assigns,
            self.handler.read,
            self._assign_back,
            Approval(ASSIGNED_ALONE_MAX, BULK_APPROVERS, STARTS_LIVE, "批量调整客户所属网点"),
        )
        of_tags = CommandHandler(tag_decider, self.store, self.catalogue, self.handler.keys)
        tagging = CustomerTags(
            self.handler,
            Tags(of_tags, self.store),
            self.store,
            self.catalogue,
            self.queries,
            self.clock,
            self.reached,
        )
        object.__setattr__(self, "tagging", tagging)
        overrides = TierOverrides(self.handler, self.store, self.today, self.override_days_max)
        object.__setattr__(self, "overrides", overrides)
        consents = CustomerConsents(self.handler, self.business_date)
        object.__setattr__(self, "consents", consents)
        profiles = CustomerProfiles(self.handler, self.store, self.today)
        object.__setattr__(self, "profiles", profiles)
        object.__setattr__(self, "edits", CustomerEdits(self.handler))
        needs = CustomerNeeds(self.handler, self.store, self.queries, self.business_date, self.need_days_max)
        object.__setattr__(self, "needs", needs)
        of_rules = CommandHandler(tier_rules_decider, self.store, self.catalogue, self.handler.keys)
        rulebook = TierRulebook(of_rules, self.store, self.catalogue, self.today)
        object.__setattr__(self, "rulebook", rulebook)
        history = TierHistory(self.handler, self.store, self.catalogue, self.business_date)
        object.__setattr__(self, "tiers", history)
        what_if = TierWhatIf(self.store, self.catalogue, self.today, self.business_date)
        object.__setattr__(self, "what_if", what_if)
        bulk_kinds = {
            ASSIGN_BRANCH: assigning,
            CHANGE_TAGS: tagging.of_many(
                Approval(TAGGED_ALONE_MAX, BULK_APPROVERS, STARTS_LIVE, "批量调整客户标签")
            ),
            OVERRIDE_TIER: overrides.of_many(
                Approval(0, BULK_APPROVERS, STARTS_LIVE, "批量人工调整客户层级")
            ),
        }
        many = Bulk(self.store, self.catalogue, self.handler.keys, bulk_kinds, self.clock)
        object.__setattr__(self, "bulk", many)
        made_of_lists = Exports(
            self.store,
            self.catalogue,
            self.handler.keys,
            exportables(self.queries, self.today),
            self.clock,
            self.storage,
            bytes_max=self.file_limits.size_bytes_max,
        )
        object.__setattr__(self, "exports", made_of_lists)
        kinds = {
            ERASE: Proposable(
                Erase, ERASURE_APPROVERS, PROPOSALS_LIVE, self._erase_as_approved, "销毁客户数据"
            ),
            LIFT_LEGAL_HOLD: Proposable(
                LiftLegalHold, ERASURE_APPROVERS, PROPOSALS_LIVE, self.handler.handle, "解除法定冻结保全"
            ),
            ADOPT_TIER_RULES: rulebook.proposable(TIER_APPROVERS, PROPOSALS_LIVE),
            OVERRIDE_TIER: overrides.proposable(TIER_APPROVERS, PROPOSALS_LIVE),
            **starts(many),
            **releases(made_of_lists),
        }
        made = FourEyes(self.store, self.catalogue, self.handler.keys, kinds)
        object.__setattr__(self, "eyes", made)
        object.__setattr__(self, "searches", Searches(self.store, self.catalogue, self.handler.keys))
        shown = saga_handler(self.store, self.catalogue, self.handler.keys, ())
        object.__setattr__(self, "sagas", Sagas(self.store, shown, self.clock))
        keeper = self.storage and FileKeeper(
            self.store, self.catalogue, self.handler.keys, self.storage, self.file_limits, self._is_held
        )
        object.__setattr__(self, "keeper", keeper)

    @property
    def files(self) -> CustomerFiles:
        """The files of customers; only in a process that has a storage of files."""
        if self.keeper is None:
            raise TypeError("this process has no storage of files")
        return CustomerFiles(self.handler, self.keeper)

    @property
    def claims(self) -> Claims:
        """Looks up the customer of a party or of an identity number."""
        return Claims(self.handler, self.store, self.claims_max)

    # commands

    async def register(self, command: RegisterCustomer, context: CommandContext) -> Outcome[CustomerEvent]:
        """Registers a customer; the id follows from the caller and its idempotency key.

        Raises DetailInvalid, and IdentityNumberKnown where another customer has the identity number.
        """
        details = normalised(command.details, self._born_until())
        fit = structs.replace(command, details=details, number_claim=number_claim(self.ids, details))
        customer = customer_of_command(context.actor, context.idempotency_key or str(context.command_id))
        return await self._claiming(customer, fit, context, None, command)

    async def change(
        self,
        customer: UUID,
        command: CustomerCommand,
        context: CommandContext,
        version: int,
        *,
        asked: Any = None,
    ) -> Outcome[CustomerEvent]:
        """Changes a customer that the caller saw at `version`; raises VersionMismatch where the version is
        another one.

        `asked` is what the caller asked for, where `command` already holds more.
        """
        if not await self.store.stream_heads([customer]):
            raise CustomerNotRegistered
        asked = command if asked is None else asked
        return await self._claiming(customer, await self._fit(customer, command), context, version, asked)

    async def edit(
        self, customer: UUID, command: DetailsCommand, context: CommandContext, version: int
    ) -> Outcome[CustomerEvent]:
        """Changes details of a customer that the caller saw at `version`. Where the caller has saved just this since, it changes nothing.

        Raises EditOutdated with what was changed since, and what `change` raises.
        """
        try:
            return await self.change(customer, command, context, version)
        except VersionMismatch as mismatch:
            fit = await self._fit(customer, command)
            return await self.edits.outdated(customer, fit, details_of(fit), context, mismatch, details_at)

    async def extend_profile(
        self,
        customer: UUID,
        changes: Mapping[ProfileField, str | None],
        channel: ProfileChannel,
        context: CommandContext,
        version: int,
    ) -> Outcome[CustomerEvent]:
        """Notes fields of the profile of a customer that the caller saw at `version`; as `edit`, and raises what
        `CustomerProfiles.extend` raises."""
        try:
            return await self.profiles.extend(customer, changes, channel, context, version)
        except VersionMismatch as mismatch:
            at = context.effective_at and context.effective
            mine = dict[str, str | None](changes.items())
            command = self.profiles.command(changes, channel, context)
            return await self.edits.outdated(
                customer, command, mine, context, mismatch, lambda state: profile_at(state, at)
            )

    async def unlink_reference(
        self, customer: UUID, party: UUID, on: date | None, context: CommandContext, version: int
    ) -> Outcome[CustomerEvent]:
        """Ends a link on a business date, by default today."""
        command = UnlinkReference(party, on or self.today())
        return await self.change(customer, command, context, version, asked=("unlink", party, on))

    async def name_key_customer(
        self, customer: UUID, context: CommandContext, version: int
    ) -> Outcome[CustomerEvent]:
        """Makes the customer a key customer from the day of the effective time on, else from today on."""
        command = NameKeyCustomer(self._effective_on(context))
        return await self.change(customer, command, context, version, asked=("name-key-customer",))

    async def review(self, customer: UUID, context: CommandContext, version: int) -> Outcome[CustomerEvent]:
        """A key customer was reviewed on the day of the effective time, else today."""
        command = ReviewCustomer(self._effective_on(context))
        return await self.change(customer, command, context, version, asked=("review-customer",))

    def _effective_on(self, context: CommandContext) -> date:
        """The business date from which on a command is so."""
        return self.today() if context.effective_at is None else self.business_date(context.effective)

    async def move_reference(
        self, customer: UUID, party: UUID, to: UUID, on: date | None, context: CommandContext, version: int
    ) -> Outcome[CustomerEvent]:
        """Moves a number to another customer from a business date on, by default today.

        Returns the outcome of the customer that loses it, with the position after both steps.

        After a crash between the two steps no customer has the number; the same command again finishes the
        move.
        """
        if to == customer or not await self.store.stream_heads([to]):
            raise CustomerNotRegistered
        effective_on, asked = on or self.today(), ("move", party, to, on)
        # No caller's key holds a blank, so this key cannot be a caller's.
        taking = structs.replace(
            context,
            command_id=uuid5(context.command_id, "taken over"),
            idempotency_key=f"{context.key} taken-over",
        )
        before = await self.store.commands([context.key, taking.key])
        if context.key not in before:
            await self._check_move(customer, party, to, effective_on)
        command = UnlinkReference(party, effective_on)
        outcome = await self.change(customer, command, context, version, asked=asked)
        link = (await self.handler.load(customer)).state.links[party]
        effective_on = (
            link.until or effective_on
        )  # of the first try, where it stopped half-way on another day
        reference = Reference(link.source, link.key, PartyId(party))
        if taking.key not in before:
            if not (await self.claims.of_party(party, effective_on)).free_for(to):
                raise AlreadyRecorded
            # The target may have had the number on that day, under an identity that is taken.
            identity = await self.claims.free_identity(party)
            reference = structs.replace(reference, claim=None if identity == party else identity)
        taken = await self.handler.handle(to, TakeOverReference(reference, effective_on), taking, asked=asked)
        # Who reads at this position sees both customers after the move.
        return structs.replace(outcome, position=max(outcome.position, taken.position))

    async def _check_move(self, customer: UUID, party: UUID, to: UUID, effective_on: date) -> None:
        """Raises what would refuse the second step of a move, so that no number is unlinked and then nobody's."""
        for one in (customer, to):
            self.handler.forget(one)
        if (link := (await self.handler.load(customer)).state.links.get(party)) is None:
            raise ReferenceNotLinked
        claim = await self.claims.of_party(party, effective_on, without=customer)
        if not claim.free_for(to):
            raise AlreadyRecorded
        await self.claims.free_identity(party)
        reference = Reference(link.source, link.key, PartyId(party))
        decide(TakeOverReference(reference, effective_on), (await self.handler.load(to)).state)

    async def _assigns(self, customer: UUID, command: AssignBranch) -> bool:
        return bool(decide(command, (await self.handler.load(customer)).state))

    async def _assign_back(
        self, customer: UUID, _: AssignBranch, before: int, version: int, context: CommandContext
    ) -> Outcome[CustomerEvent]:
        """Assigns the branch that the customer had at version `before`."""
        branch = (await self.handler.state_at(customer, before)).values.get("branch")
        if branch is None:
            raise BranchUnknownBefore
        return await self.handler.handle(customer, AssignBranch(branch), context, version)

    async def prepare_erasure(
        self, customer: UUID, context: CommandContext, version: int
    ) -> Outcome[CustomerEvent]:
        """Begins to have the sources release no record of the customer's parties, so that an erasure finds what was
        checked. A saga does it (ADR 0051).

        Raises what would refuse the erasure now.
        """
        if (await self.store.commands([context.key])).get(context.key) is None:
            await self._erasure(customer)
        state = (await self.handler.load(customer)).state
        parties = tuple(
            PartyOfSource(state.links[party].source, party) for party in sorted(state.confirmed_until())
        )
        command = BeginErasurePreparation(context.command_id, parties)
        return await self.change(customer, command, context, version, asked=("prepare-erasure",))

    async def propose_erasure(
        self, customer: UUID, context: CommandContext, version: int | None = None
    ) -> ProposalShown:
        """Proposes that a customer is erased; another person approves it.

        Raises what would refuse the erasure now: CustomerNotRegistered, VersionMismatch, RetentionHolds.
        """
        if (await self.store.commands([context.key])).get(context.key) is None:
            _, seen = await self._erasure(customer)
            if version is not None and version != seen.version:
                raise VersionMismatch(version, seen.version)
        return await self.eyes.propose(ERASE, customer, Erase(), context)

    async def _erase_as_approved(
        self, customer: UUID, _: Erase, context: CommandContext
    ) -> Outcome[CustomerEvent]:
        return await self.erase(customer, context)

    async def erase(
        self, customer: UUID, context: CommandContext, version: int | None = None
    ) -> Outcome[CustomerEvent]:
        """Erases a customer's personal values: all that may go, and the values for contact alone where the rest is still kept.

        Changes nothing where it is erased already, at any version the caller saw.

        A policy destroys the keys that the event names. Raises CustomerNotRegistered, VersionMismatch,
        RetentionHolds, LegalHoldStands.
        """
        repeated = await self._repeated(customer, context)
        command, loaded = (None, await self._now(customer)) if repeated else await self._erasure(customer)
        if command is None:
            return Outcome(customer, loaded.version, loaded.position, (), replayed=True)
        seen = loaded.version if version is None else version
        return await self.handler.handle(customer, command, context, expected_version=seen, asked="erase")

    async def finish_erasure(
        self, customer: UUID, context: CommandContext, version: int
    ) -> Outcome[CustomerEvent]:
        """Erases the rest of a customer whose values for contact are gone, or finds the day on which to look again.

        Raises VersionMismatch, and LegalHoldStands for a hold without an end: lifting it brings the erasure on again.
        """
        repeated = await self._repeated(customer, context)
        loaded = await self._now(customer)
        if repeated or loaded.state.erased:
            return Outcome(customer, loaded.version, loaded.position, (), replayed=True)
        day, command = self.today(), None
        try:
            kept, command = await self._whole(loaded)
            until = kept.until
        except RetentionHolds:
            # It came back. The relation cannot end earlier than today.
            until = years_after(day, self.retention.years)
        holds = standing(loaded.state, day)
        until = max([until, *(one for one in holds if one is not None)])
        if None in holds:
            raise LegalHoldStands("until it is lifted")
        wanted = command if command is not None and until <= day else DeferErasure(until)
        return await self.handler.handle(customer, wanted, context, expected_version=version, asked="erase")

    async def _now(self, customer: UUID) -> Loaded[Customer]:
        self.handler.forget(customer)
        return await self.handler.load(customer)

    async def _erasure(self, customer: UUID) -> tuple[EraseCustomer | EraseContact | None, Loaded[Customer]]:
        """The command that erases a customer now, None where it is erased; raises what refuses it."""
        loaded = await self._now(customer)
        if loaded.state.erased:
            return None, loaded
        if not loaded.state.registered:
            raise CustomerNotRegistered
        day = self.today()
        kept, whole = await self._whole(loaded)
        command: EraseCustomer | EraseContact = whole
        if day < kept.until:
            apart = not loaded.state.contact_erased and not await self._contact_goes_with_all(
                [customer, *whole.parties]
            )
            until = kept.contact_until if apart else kept.until
            if day < until:
                raise RetentionHolds(f"until {until}")
            command = EraseContact(whole.parties, kept.until, day)
        decide(command, loaded.state)
        return command, loaded

    async def _contact_goes_with_all(self, subjects: Sequence[UUID]) -> bool:
        return bool(await asyncio.to_thread(self.handler.keys.inseparable, subjects, purposes.CONTACT))

    async def _whole(self, loaded: Loaded[Customer]) -> tuple[Kept, EraseCustomer]:
        """Until when a customer is kept, and the command that erases all of it; raises RetentionHolds, TooManyAccounts."""
        day = self.today()
        related_until = loaded.state.confirmed_until()
        ends = {str(party): _text_of(until) for party, until in related_until.items()}
        related, described = await self.queries.holdings.relations(sorted(ends))
        kept = kept_until(
            related, described, ends, day=day, retention=self.retention, dated=self.business_date
        )
        standing_on = {party: loaded.state.link_on(party, day) for party in related_until}
        parties = sorted(party for party, link in standing_on.items() if link is not None and link.confirmed)
        own = {str(party) for party in parties}
        accounts = [one for one in related if own & {holder["party_id"] for holder in one["holders"]}]
        held = tuple(
            HeldAccount(
                UUID(account["_id"]),
                tuple(sorted({UUID(one["party_id"]) for one in account["holders"]} - set(parties))),
            )
            for account in accounts
        )
        return kept, EraseCustomer(tuple(parties), held, day)

    async def place_legal_hold(
        self, customer: UUID, until: date | None, context: CommandContext
    ) -> Outcome[CustomerEvent]:
        """Forbids every erasure of a customer; the id of the hold is that of the command. At any version: it is urgent.

        Raises CustomerNotRegistered, and CustomerIsErased where the keys are gone or are being destroyed.
        """
        if not await self.store.stream_heads([customer]):
            raise CustomerNotRegistered
        command = PlaceLegalHold(context.command_id, until, self.today())
        return await self.handler.handle(customer, command, context, asked=("place-legal-hold", until))

    async def _is_held(self, customer: UUID) -> bool:
        return bool(standing((await self._now(customer)).state, self.today()))

    async def propose_lifting(self, customer: UUID, hold: UUID, context: CommandContext) -> ProposalShown:
        """Proposes that a legal hold is lifted; another person approves it. Raises what would refuse it now."""
        command = LiftLegalHold(hold)
        if (await self.store.commands([context.key])).get(context.key) is None:
            decide(command, (await self._now(customer)).state)
        return await self.eyes.propose(LIFT_LEGAL_HOLD, customer, command, context)

    async def erasure(self, customer: UUID) -> ErasureShown:
        """How far a customer is erased, and what forbids it; raises CustomerNotRegistered."""
        loaded = await self._now(customer)
        state = loaded.state
        if not state.registered:
            raise CustomerNotRegistered
        return ErasureShown(
            loaded.version, state.erased, state.contact_erased, state.rest_from, dict(state.holds)
        )

    async def _repeated(self, customer: UUID, context: CommandContext) -> bool:
        """Whether this command erased before; raises CommandKeyReused where the key was another command's.

        The digest of an erasure was made with a key that is destroyed, so its event is asked.
        """
        seen = (await self.store.commands([context.key])).get(context.key)
        if seen is None:
            return False
        stored = await self.store.read_stream(
            seen.stream_id, seen.version - seen.event_count, seen.event_count
        )
        said = [self.catalogue.metadata_of(one) for one in stored if one.name in _ERASURES]
        why = context.reason, context.on_behalf_of
        if seen.stream_id != customer or [(one.reason, one.on_behalf_of) for one in said] != [why]:
            raise CommandKeyReused
        return True

    async def _fit(  # noqa: PLR0911 (one arm per command)
        self, customer: UUID, command: CustomerCommand
    ) -> CustomerCommand:
        """Returns the command with its values normalised; raises DetailInvalid."""
        state = (await self.handler.load(customer)).state
        kind, until = state.kind, self._born_until()
        match command:
            case RenameCustomer(name):
                fit = normalised(Details(name=name, kind=kind), until)
                return RenameCustomer(fit.name or name)
            case ChangeContactDetails(phone, email, address):
                raw = Details(name=None, kind=kind, phone=phone, email=email, address=address)
                fit = normalised(raw, until)
                return ChangeContactDetails(fit.phone, fit.email, fit.address)
            case CorrectIdentityDetails(born_on, identity_number):
                raw = Details(name=None, kind=kind, born_on=born_on, identity_number=identity_number)
                fit = normalised(raw, until)
                claim = None
                if fit.identity_number != state.values.get("identity_number") or state.number_shared:
                    claim = number_claim(self.ids, fit)
                return CorrectIdentityDetails(fit.born_on, fit.identity_number, claim)
            case EditDetails(changes):
                return self._fit_edit(state, changes)
            case ConfirmReference(party):
                link = state.links.get(party)
                described = {} if link is None else link.described or {}
                raw = structs.replace(Details(name=None, kind=kind), **cast("dict[str, str]", described))
                kept = normalised_or_kept(raw, until)
                return ConfirmReference(party, number_claim(self.ids, kept), None, kept.invalid)
            case ResolveContradiction(field="identity_number", party=party, accept=True):
                number = state.contradictions.get("identity_number", {}).get(party)
                kept = normalised_or_kept(Details(name=None, kind=kind, identity_number=number), until)
                return structs.replace(command, number_claim=number_claim(self.ids, kept))
            case _:
                return command

    def _fit_edit(self, state: Customer, changes: Mapping[Detail, str | None]) -> EditDetails:
        stands = state.values.get("identity_number")
        found, fit = edited(changes, stands, state.kind, self._born_until())
        claim = None
        if found.identity_number != stands or state.number_shared:
            claim = number_claim(self.ids, found)
        return EditDetails(fit, claim)

    def _born_until(self) -> date:
        return (self.born_until or self.today)()

    async def _claiming(
        self,
        customer: UUID,
        command: CustomerCommand,
        context: CommandContext,
        version: int | None,
        asked: Any,
    ) -> Outcome[CustomerEvent]:
        """Carries a command out.

        Where its claim is taken, raises with the other customer, or claims a number that is free again.
        """
        try:
            return await self.handler.handle(customer, command, context, version, asked=asked)
        except AlreadyRecorded:
            free = await self._free(customer, command)
            if free == command:
                raise
        return await self.handler.handle(customer, free, context, version, asked=asked)

    async def _free(  # noqa: PLR0911 (one arm per command)
        self, customer: UUID, command: CustomerCommand
    ) -> CustomerCommand:
        match command:
            case RegisterCustomer(details, references, _, first):
                found = tuple([await self._free_reference(customer, one) for one in references])
                claim = await self._free_number(customer, first, details.identity_number)
                return structs.replace(command, references=found, number_claim=claim)
            case LinkReference(reference):
                return LinkReference(await self._free_reference(customer, reference))
            case CorrectIdentityDetails(born_on, number, first):
                values = (await self.handler.load(customer)).state.values
                try:
                    claim = await self._free_number(customer, first, number)
                except IdentityNumberKnown:
                    if number != values.get("identity_number") or born_on == values.get("born_on"):
                        raise
                    claim = None  # it stays shared, and the day of birth is corrected
                return structs.replace(command, number_claim=claim)
            case EditDetails(changes, first) if first is not None:
                claim = await self._free_number(customer, first, changes.get("identity_number"))
                return structs.replace(command, number_claim=claim)
            case ConfirmReference(party, first) if first is not None:
                link = (await self.handler.load(customer)).state.links.get(party)
                stated = {} if link is None else link.described or {}
                known = await self.claims.of_number(first, stated.get("identity_number", ""))
                if known.free_for(customer):
                    return structs.replace(command, number_claim=known.identity)
                return structs.replace(command, number_claim=None, shared_with=known.holder)
            case ResolveContradiction(field, party, _, first) if first is not None:
                state = (await self.handler.load(customer)).state
                number = state.contradictions.get(field, {}).get(party)
                claim = await self._free_number(customer, first, number)
                return structs.replace(command, number_claim=claim)
            case _:
                return command

    async def _free_reference(self, customer: UUID, reference: Reference) -> Reference:
        claim = await self.claims.of_party(reference.party, self.today())
        if not claim.free_for(customer):
            raise AlreadyRecorded
        return structs.replace(reference, claim=None if claim.identity == reference.party else claim.identity)

    async def _free_number(self, customer: UUID, first: UUID | None, number: str | None) -> UUID | None:
        if first is None or number is None:
            return first
        claim = await self.claims.of_number(first, number)
        if claim.holder is not None and claim.holder != customer:
            raise IdentityNumberKnown(claim.holder)
        return claim.identity

    # questions

    async def customer(self, scope: Scope, customer: UUID) -> Document:
        """Returns a customer, with the version of its stream that the document shows."""
        [found] = await self._versioned(scope, [_found(await self.queries.customers.one(scope, customer))])
        return found

    async def panorama(self, scope: Scope, customer: UUID, month: str | None) -> Panorama:
        """A customer's asset panorama."""
        return _found(await self.queries.holdings.panorama(scope, customer, self.clock.now(), month))

    async def accounts(self, scope: Scope, customer: UUID) -> list[Document]:
        """The accounts of a customer with all their holders."""
        return _found(await self.queries.holdings.accounts(scope, customer))

    async def movements(
        self, scope: Scope, customer: UUID, account: UUID, wanted: MovementsWanted, after: int, limit: int
    ) -> tuple[list[Document], list[Document]]:
        """A page of the movements of a customer's account, and what all of those wanted sum to."""
        if (of := await self.queries.holdings.held_account(scope, customer, account)) is None:
            raise AccountNotHeld
        sums = await self.queries.movements.sums(of, wanted)
        return await self.queries.movements.page(of, wanted, after, limit), sums

    async def loans(
        self, scope: Scope, customer: UUID, account: UUID, currency: str | None
    ) -> tuple[list[HeldLoan], list[LoansSum]]:
        """The loans of a customer's account, and per currency what those without an account of their own sum
        to."""
        if (of := await self.queries.holdings.held_account(scope, customer, account)) is None:
            raise AccountNotHeld
        loans = await self.queries.holdings.loans(of, currency)
        owed = [loan for loan in loans if loan["outstanding_minor"] is not None]
        return loans, [_summed(code, owed) for code in sorted({loan["currency"] for loan in owed})]

    async def events(
        self, customer: UUID, after: int, limit: int, hidden: Collection[str] = ()
    ) -> list[Document]:
        """Returns the events of a customer with actor and reason, from the event store, without personal
        values, and without those of a `hidden` name."""
        found = list[Document]()
        while len(found) < limit:
            stored = await self.store.read_stream(customer, after, limit)
            if not stored:
                break
            after = stored[-1].version
            found += [
                _event(customer, one.version, one.name, one.position, self.catalogue.metadata_of(one))
                for one in stored
                if one.name not in hidden
            ]
        if not found and not await self.store.read_stream(customer, 0, 1):
            raise CustomerNotRegistered
        return found[:limit]

    async def outside(self, scope: Scope, customer: UUID) -> bool:
        """Whether a customer is out of scope, or unknown: both are answered alike. Whom the view does not show yet the store
        knows: the view of its accounts may be further."""
        covered = await self.queries.list.covers(scope, str(customer))
        return await self.outside_now(scope, customer) if covered is None else not covered

    async def outside_now(self, scope: Scope, customer: UUID) -> bool:
        """As `outside`, by the events of the customer alone: a command does not wait for the view."""
        if scope.everything:
            return False
        loaded = await self._now(customer)
        facts = {BRANCH: loaded.state.values.get(BRANCH)}
        return not loaded.version or not scope.covers(facts, CUSTOMERS_LIST.fields, self.today())

    async def told_of(self, scope: Scope, known: IdentityNumberKnown) -> IdentityNumberKnown:
        """The refusal as it is told to who has this scope."""
        return IdentityNumberKnown(known.customer, shown=not await self.outside_now(scope, known.customer))

    async def require_in_scope(self, scope: Scope, customers: Sequence[UUID]) -> None:
        """Raises CustomerNotRegistered where one of the customers is out of scope."""
        if not scope.everything:
            for one in customers:
                if await self.outside_now(scope, one):
                    raise CustomerNotRegistered

    async def customers(
        self, scope: Scope, question: Question, caller: str, limit: int, after: str | None
    ) -> tuple[list[Document], str | None]:
        """A page of the list of customers, and the cursor of the page after it."""
        found = await self.queries.list.page(scope, question, caller, limit=limit, after=after)
        shown = await self.queries.customers.masked(scope, found.documents)
        return await self._versioned(scope, shown), found.next

    async def customers_counted(self, scope: Scope, question: Question) -> Counted:
        """How many customers are on the list."""
        return await self.queries.list.count(scope, question)

    async def search(
        self, scope: Scope, field: str, value: str, context: CommandContext
    ) -> tuple[list[Document], bool, int]:
        """The customers in scope that have this phone number, e-mail address or identity number, whether there are
        more, and the position of the search, which is stored before they are shown. The same search again shows none
        that it has not named."""
        digests = [await self.queries.blind.digest(field, each) for each in spellings(field, value)]
        found = await self.queries.facts.having(scope, field, digests, limit=FOUND_MAX + 1)
        shown, more = [str(one[ID]) for one in found[:FOUND_MAX]], len(found) > FOUND_MAX
        searched = ValueSearched(FACTS_LIST.name, field, tuple(map(UUID, shown)), more)
        noted = await self.searches.note(searched, digests, context)
        [told] = noted.events
        named = [one for one in shown if UUID(one) in told.found]
        customers = await self.queries.customers.some(scope, named) if named else []
        return (
            await self._versioned(scope, sorted(customers, key=itemgetter("customer_id"))),
            told.more,
            noted.position,
        )

    async def _versioned(self, scope: Scope, found: Sequence[Document]) -> list[Document]:
        """Returns customers as the view shows them, each with the version of its stream that is shown."""
        shown = await versioned(
            found,
            self.store.stream_ends,
            lambda position: self.reached(CONTEXT, position, 0.0),
            lambda subjects: self.queries.customers.some(scope, [str(subject) for subject in subjects]),
            lambda one: (UUID(one["customer_id"]), one["version"]),
        )
        return [{**one, "version": version} for one, version in shown]

    async def selected(
        self, scope: Scope, question: Question, caller: str, limit: int, after: str | None
    ) -> tuple[list[Document], str | None]:
        """A page of the facts of customers, and the cursor of the page after it."""
        return await self.queries.facts.page(scope, question, caller, limit=limit, after=after)

    async def to_change(self, scope: Scope, question: Question, customers: Sequence[UUID]) -> ToChange:
        """These customers; where none is named, all in scope whose facts meet the condition on the business date of now, which
        who approves a run on another day reads in its words. Raises CustomerNotRegistered, ConditionInvalid."""
        today = (await self.queries.meanings.meant(question)).on(self.today())
        await self.require_in_scope(scope, customers)
        found = listed(customers) if customers else self._meeting(scope, today)
        return ToChange(found, [list(customers), question.named()], await self.queries.meanings.worded(today))

    async def _meeting(self, scope: Scope, question: Question) -> AsyncIterator[UUID]:
        """All customers in scope whose facts meet a condition, read bit by bit."""
        async for customer in self.queries.facts.every(scope, question):
            yield UUID(customer)

    async def counted(self, scope: Scope, question: Question) -> Counted:
        """How many customers meet a condition on their facts."""
        return await self.queries.facts.count(scope, question)

    async def branches(self, scope: Scope) -> Summed:
        """What the customers of each branch in scope add up to."""
        return await self.queries.branches.summed(scope)

    async def funnel(
        self, scope: Scope, condition: Condition, as_of: date | None
    ) -> tuple[list[Step], tuple[Condition, ...] | None]:
        """How many customers each part of a condition leaves; where none is left, the smallest set of parts that leaves
        none. Raises ConditionInvalid where there are too many parts."""
        try:
            steps = await self.queries.facts.funnel(scope, condition, as_of)
            empty = not steps[-1].so_far
            culprits = await self.queries.facts.emptying(scope, condition, as_of) if empty else None
            named = await self.queries.meanings.naming(condition)
            return (
                [
                    step._replace(part=part, sentence=sentence(part, FIELDS))
                    for step in steps
                    for part in [named(step.part)]
                ],
                None if culprits is None else tuple(map(named, culprits)),
            )
        except ConditionRefused as refused:
            raise ConditionInvalid(str(refused)) from refused

    async def explained(
        self, scope: Scope, customer: UUID, condition: Condition, as_of: date | None
    ) -> Explanation:
        """Why a customer meets a condition, or does not."""
        found = _found(await self.queries.facts.one(scope, str(customer), as_of))
        meanings = self.queries.meanings
        named, called = await meanings.named(condition), await meanings.told(found, condition)
        return explained(named, called, FIELDS, as_of or self.today())

    async def facts_now(self, customer: UUID) -> Document | None:
        """The facts of a customer, in no scope but its own; None where none are derived."""
        return await self.queries.facts.one(Scope.all(), str(customer), None)

    async def require_facts(self, scope: Scope, customers: Sequence[UUID]) -> None:
        """Raises CustomerNotRegistered where one of the customers has no facts, or is out of scope."""
        if not await self.queries.facts.all_there(scope, [str(customer) for customer in customers]):
            raise CustomerNotRegistered

    async def by_reference(self, scope: Scope, source: str, key: str) -> list[Document]:
        """The customer that a source knows under its own number, if it is in scope."""
        found = await self.queries.customers.of_party(scope, self.ids.party(source, key))
        visible = [one for one in found if not await self.outside(scope, UUID(one["customer_id"]))]
        return await self._versioned(scope, visible)

    async def unlinked(
        self, scope: Scope, after: UUID | None, limit: int
    ) -> tuple[Sequence[Document], str | None, int, bool]:
        """Returns accounts that wait for their customer, the next cursor, their number, and whether all were
        counted."""
        count, beyond = await self.queries.unlinked.count(scope)
        found, reached = await self.queries.unlinked.page(scope, None if after is None else str(after), limit)
        return found, reached, count, beyond is None


def _text_of(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _found(answer: T | None) -> T:
    if answer is None:
        raise CustomerNotRegistered
    return answer


def _summed(currency: str, loans: Sequence[HeldLoan]) -> LoansSum:
    those = [loan for loan in loans if loan["currency"] == currency]
    return {
        "currency": currency,
        "granted_minor": sum(loan["granted_minor"] for loan in those),
        "repaid_minor": sum(loan["repaid_minor"] or 0 for loan in those),
        "outstanding_minor": sum(loan["outstanding_minor"] or 0 for loan in those),
    }


def _event(customer: UUID, version: int, name: str, position: int | None, metadata: Metadata) -> Document:
    return {
        "event_id": str(event_id(customer, version)),
        "name": name,
        "sequence": version,
        "position": position,
        "recorded_at": metadata.recorded_at.isoformat(),
        "effective_at": metadata.effective_at.isoformat(),
        "actor": metadata.actor,
        "post": metadata.post,
        "reason": metadata.reason,
        "command_id": str(metadata.command_id),
        "correlation_id": str(metadata.correlation_id),
        "causation_id": str(metadata.causation_id),
        "traceparent": metadata.trace.get("traceparent"),
    }
