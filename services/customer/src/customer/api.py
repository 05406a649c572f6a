"""HTTP of customer: commands with `Idempotency-Key` and `If-Match`, questions with `at_least`; values come masked."""

from collections.abc import Awaitable, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Final, Literal, TypeVar, cast
from uuid import UUID

import msgspec
from chassis.bulk import BulkOversized
from chassis.bulk.routes import PREPARED, BulkAnswer, add_bulk, prepared
from chassis.conditions import Condition, sentence
from chassis.conditions.language import Has
from chassis.exports.routes import add_exports
from chassis.lists import ConditionInvalid, FieldNotPermitted, QueryTooSlow, Question, question
from chassis.lists.describing import add_conditions, condition_components
from chassis.lists.routes import (
    COUNTED,
    LISTED,
    AsOf,
    CountedCondition,
    Filtered,
    Funnel,
    Sentence,
    Sorted,
    Total,
    Totalled,
    Where,
    funnel_of,
)
from chassis.money import CurrencyCode
from chassis.notices import Inboxes
from chassis.notices.routes import add_notices
from chassis.privacy.tokens import Caller
from chassis.proposals.routes import PROPOSED, ProposalAnswer, add_proposals, proposed
from chassis.sagas.routes import add_sagas
from chassis.watching import LastEventId, Seconds, Wanted, streamed, watched
from chassis.watching.routes import IDS_MAX
from chassis.web import (
    Asking,
    DatedBody,
    DatedExplainedBody,
    Dependencies,
    DescribedRouter,
    ExplainedBody,
    OwnParameters,
    Paging,
    consistency_token,
    cursor,
    cursor_values,
    entity_tag,
    paging,
    refusals,
    tagged,
)
from chassis.web.problems import NotReady, RequestInvalid
from chassis.web.streams import STREAM_SECONDS_MAX, EventStream
from chassis.write.deciding import (
    AlreadyRecorded,
    CommandContext,
    CommandKeyReused,
    Outcome,
    TooManyConflicts,
    VersionMismatch,
)
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import AfterValidator

from customer.application import ASSIGN_BRANCH, AccountNotHeld, CustomerService
from customer.branches import BranchesPage, page_of
from customer.catalogue import CONTEXT
from customer.claims import ClaimedTooOften, IdentityNumberKnown
from customer.consent_routes import add_consents
from customer.domain.commands import (
    AssignBranch,
    ChangeContactDetails,
    ConfirmReference,
    CorrectIdentityDetails,
    CustomerCommand,
    EndErasurePreparation,
    EndKeyCustomer,
    LinkReference,
    RejectReference,
    RenameCustomer,
    ResolveContradiction,
)
from customer.domain.events import CustomerEvent, Detail
from customer.domain.refusals import (
    ContradictionUnknown,
    CustomerAlreadyRegistered,
    CustomerIsErased,
    CustomerNotRegistered,
    LegalHoldEnded,
    LegalHoldStands,
    LegalHoldUnknown,
    NotAKeyCustomer,
    ReferenceNotLinked,
    ReferenceSettled,
    TooManyLegalHolds,
    TooManyReferences,
)
from customer.done import done
from customer.edit_routes import OUTDATED, add_edits, edited
from customer.examples import EXAMPLES
from customer.facts import FIELDS
from customer.file_routes import add_files
from customer.lists import ASKED, CUSTOMERS_LIST, FACTS_LIST, branch_of, scope_of
from customer.need_routes import add_needs
from customer.normalising import DetailInvalid
from customer.panorama.schema import MONTH_PATTERN, Panorama, TransactionTypeKnown
from customer.permissions import ROLES
from customer.profile_routes import add_profiles
from customer.publishing import NOT_TOLD
from customer.queries import MovementsWanted
from customer.queries.holdings import HoldingsTooLarge
from customer.retention import RetentionHolds, TooManyAccounts
from customer.selecting import (
    Explained,
    FactsPage,
    explained,
    facts_shown,
    may_of,
)
from customer.shapes import (
    AccountHeld,
    AccountKnown,
    Accounts,
    BranchAssignmentBody,
    ContactDetailsBody,
    CustomerEventShown,
    CustomerPage,
    CustomerShown,
    Done,
    ErasureAnswer,
    EventPage,
    IdentityDetailsBody,
    LegalHoldBody,
    LegalHoldShown,
    Loans,
    MoveBody,
    Movement,
    MovementPage,
    NameBody,
    ReferenceBody,
    RegisterBody,
    ResolveBody,
    SearchBody,
    SearchFound,
    UnlinkBody,
    UnlinkedPage,
    reference,
)
from customer.tag_routes import add_tags
from customer.tier_routes import add_tiers
from customer.tier_what_if_routes import add_what_if

T = TypeVar("T")
TAG: Final = "customer"
DESCRIPTION: Final = (
    "Customers, their accounts and movements, and the asset panorama (资产全景); personal values come masked."
)

Paged = Annotated[Paging, Depends(paging)]
CustomerPath = Annotated[UUID, Path(description="the customer")]
PartyPath = Annotated[UUID, Path(description="the party that a source's number names")]
QuestionWanted = Annotated[
    Literal["contradiction", "invalid", "reference", "identity-number"] | None,
    Query(description="only with this question"),
]
AccountPath = Annotated[UUID, Path(description="the account")]
WantedReference = Annotated[
    str | None,
    Query(
        pattern=r"^[^:\x00]{1,64}:[^\x00]{1,200}$",
        description="SOURCE:NUMBER, the source's name and its own number of the customer",
    ),
    AfterValidator(lambda text: None if text is None else reference(text)),
]
CurrencyWanted = Annotated[CurrencyCode | None, Query(description="only of this currency")]
MonthWanted = Annotated[
    str | None, Query(pattern=MONTH_PATTERN, description="YYYY-MM, the bank's own months")
]

Watching = Annotated[
    list[UUID], Query(alias="customer", max_length=IDS_MAX, description="only these customers")
]
WatchedWhere = Annotated[
    str | None,
    Query(
        alias="where",
        min_length=1,
        max_length=4_000,
        description="only customers that meet this condition on their facts, and those that come to meet it or cease to",
    ),
]

Answers = dict[int | str, dict[str, Any]]

_encode: Final = msgspec.json.Encoder().encode
_TAGGED: Final = tagged("customer")
_UNKNOWN: Final = refusals(CustomerNotRegistered)
_SHOWN: Final[Answers] = {**_TAGGED, **_UNKNOWN}
_PANORAMA: Final[Answers] = {200: {"model": Panorama}, **refusals(CustomerNotRegistered, HoldingsTooLarge)}
_PANORAMA_WANTED: Final = OwnParameters(customer_id=CustomerPath, month=MonthWanted)
_REGISTERED: Final[Answers] = {
    **tagged("customer", at="where the customer is"),
    **refusals(
        CustomerAlreadyRegistered, TooManyReferences, AlreadyRecorded, IdentityNumberKnown, ClaimedTooOften
    ),
    **refusals(DetailInvalid),
}
_CHANGED: Final[Answers] = {
    **_TAGGED,
    **refusals(CustomerNotRegistered, VersionMismatch, TooManyConflicts),
}
_LINKED: Final[Answers] = {
    **_CHANGED,
    **refusals(TooManyReferences, AlreadyRecorded, ClaimedTooOften, TooManyConflicts),
}
_FIT: Final[Answers] = {**_CHANGED, **OUTDATED, **refusals(DetailInvalid)}
_IDENTIFIED: Final[Answers] = {
    **_CHANGED,
    **OUTDATED,
    **refusals(DetailInvalid, IdentityNumberKnown, ClaimedTooOften, TooManyConflicts),
}
_SETTLED: Final[Answers] = {
    **_CHANGED,
    **refusals(CustomerNotRegistered, ReferenceNotLinked),
    **refusals(ReferenceSettled, TooManyConflicts),
}
_MOVED: Final[Answers] = {
    **_SETTLED,
    **refusals(ReferenceSettled, TooManyReferences, AlreadyRecorded, ClaimedTooOften, TooManyConflicts),
}
_ERASED: Final[Answers] = {
    **PROPOSED,
    **refusals(CustomerNotRegistered, VersionMismatch),
    **refusals(RetentionHolds, LegalHoldStands, TooManyAccounts, TooManyConflicts),
}
_PREPARED: Final[Answers] = {
    **_CHANGED,
    **refusals(RetentionHolds, LegalHoldStands, TooManyAccounts, TooManyConflicts),
}
_HELD: Final[Answers] = {
    **_UNKNOWN,
    **refusals(CustomerIsErased, TooManyLegalHolds, TooManyConflicts),
    **refusals(LegalHoldEnded, CommandKeyReused),
}
_LIFTED: Final[Answers] = {
    **PROPOSED,
    **refusals(CustomerNotRegistered, LegalHoldUnknown),
    **refusals(CustomerIsErased, CommandKeyReused),
}
_REVIEWED: Final[Answers] = {**_CHANGED, **refusals(NotAKeyCustomer, TooManyConflicts)}
_RESOLVED: Final[Answers] = {
    **_CHANGED,
    **refusals(CustomerNotRegistered, ContradictionUnknown),
    **refusals(IdentityNumberKnown, ClaimedTooOften, TooManyConflicts),
}

_WATCHED: Final[Answers] = watched(ConditionInvalid, FieldNotPermitted, CustomerNotRegistered, RequestInvalid)
_SEARCHED: Final[Answers] = refusals(CommandKeyReused, TooManyConflicts, QueryTooSlow)
_QUESTIONS: Final = Has(field="questions", values=tuple(FIELDS["questions"].values))


def create_router(service: CustomerService, dependencies: Dependencies) -> APIRouter:  # noqa: PLR0915 (one statement per route)
    """The routes of customer."""

    async def within_scope(request: Request, caller: Asking) -> None:
        """Of a customer out of the caller's scope nothing is shown or changed: it is as if it were not there. Questions ask
        the view that answers them; commands ask the events, which the view may not show yet."""
        outside = service.outside if request.method == "GET" else service.outside_now
        named = _customer_in(request.path_params)
        if named is not None and await outside(scope_of(caller), named):
            raise CustomerNotRegistered

    guards = [Depends(dependencies.caller), Depends(within_scope)]
    router = DescribedRouter(TAG, DESCRIPTION, EXAMPLES, dependencies=guards, schemas=condition_components)
    asking = [Depends(dependencies.at_least)]
    asking_facts = [Depends(dependencies.at_least_derived)]
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]
    Expected = Annotated[int, Depends(dependencies.expected_version)]

    async def changed(
        response: Response, customer: UUID, command: CustomerCommand, context: CommandContext, version: int
    ) -> Done:
        return done(response, await service.change(customer, command, context, version))

    async def identified(
        caller: Caller, outcome: Awaitable[Outcome[CustomerEvent]]
    ) -> Outcome[CustomerEvent]:
        """The outcome of a command that claims an identity number; who else has it is told within scope alone."""
        try:
            return await outcome
        except IdentityNumberKnown as known:
            raise await service.told_of(scope_of(caller), known) from known

    # Routes are tried in this order, so what is asked most stands first.

    @router.get(
        "/customers/{customer_id}/panorama",
        dependencies=asking,
        responses=_PANORAMA,
        openapi_extra=_PANORAMA_WANTED.described,
    )
    async def get_panorama(request: Request, caller: Asking) -> Response:
        """What a customer owns and owes, per currency, each figure with its source, its age and its events."""
        customer_id, month = _PANORAMA_WANTED.read(request)
        found = await service.panorama(scope_of(caller), customer_id, month)
        return Response(_encode(found), media_type="application/json")

    # commands

    @router.post("/customers", status_code=201, responses=_REGISTERED)
    async def register_customer(
        response: Response, caller: Asking, context: Commanding, body: RegisterBody
    ) -> Done:
        """Registers a customer. A reference that is another customer's is refused."""
        outcome = await identified(caller, service.register(body.said(service.ids), context))
        response.headers["Location"] = f"/customers/{outcome.stream_id}"
        return done(response, outcome)

    @router.put("/customers/{customer_id}/name", responses=_FIT)
    async def rename_customer(
        response: Response,
        caller: Asking,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: NameBody,
    ) -> Done:
        """Changes the name of a customer."""
        renamed = service.edit(customer_id, RenameCustomer(body.name), context, version)
        return done(response, await edited(renamed, caller, body))

    @router.put("/customers/{customer_id}/contact-details", responses=_FIT)
    async def change_contact_details(
        response: Response,
        caller: Asking,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: ContactDetailsBody,
    ) -> Done:
        """Replaces the contact details of a customer. A detail that is left out is removed."""
        command = ChangeContactDetails(body.phone, body.email, body.address)
        replaced = service.edit(customer_id, command, context, version)
        return done(response, await edited(replaced, caller, body))

    @router.put("/customers/{customer_id}/identity-details", responses=_IDENTIFIED)
    async def correct_identity_details(
        response: Response,
        caller: Asking,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: IdentityDetailsBody,
    ) -> Done:
        """Corrects what identifies a person: date of birth and identity number. A number that a source stated while it was
        another customer's is this customer's once it is stated again here."""
        born_on = None if body.born_on is None else body.born_on.isoformat()
        command = CorrectIdentityDetails(born_on, body.identity_number)
        corrected = service.edit(customer_id, command, context, version)
        return done(response, await edited(identified(caller, corrected), caller, body))

    @router.post("/customers/{customer_id}/references", responses=_LINKED)
    async def link_reference(
        response: Response,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: ReferenceBody,
    ) -> Done:
        """Staff claim that an external id is this customer's. It shows no account until it is confirmed: by
        master data that describes the same person, or by a person."""
        return await changed(response, customer_id, LinkReference(body.said(service.ids)), context, version)

    @router.post("/customers/{customer_id}/references/{party_id}/confirm", responses=_SETTLED)
    async def confirm_reference(
        response: Response,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        party_id: PartyPath,
        body: ExplainedBody,
    ) -> Done:
        """Confirms that a claimed external id is this customer's: its accounts are shown from now on."""
        return await changed(response, customer_id, ConfirmReference(party_id), context, version)

    @router.post("/customers/{customer_id}/references/{party_id}/reject", responses=_SETTLED)
    async def reject_reference(
        response: Response,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        party_id: PartyPath,
        body: ExplainedBody,
    ) -> Done:
        """Rejects a claimed external id: it is not this customer's."""
        return await changed(response, customer_id, RejectReference(party_id), context, version)

    @router.post("/customers/{customer_id}/references/{party_id}/unlink", responses=_SETTLED)
    async def unlink_reference(
        response: Response,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        party_id: PartyPath,
        body: UnlinkBody,
    ) -> Done:
        """Unlinks an external id from a business date on: the customer's panorama no longer shows its accounts."""
        on = body.effective_on
        return done(response, await service.unlink_reference(customer_id, party_id, on, context, version))

    @router.post("/customers/{customer_id}/references/{party_id}/move", responses=_MOVED)
    async def move_reference(
        response: Response,
        caller: Asking,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        party_id: PartyPath,
        body: MoveBody,
    ) -> Done:
        """Moves an external id to another customer from a business date on. The version is that of the customer
        that loses it."""
        if await service.outside_now(scope_of(caller), body.to):
            raise CustomerNotRegistered
        outcome = await service.move_reference(
            customer_id, party_id, body.to, body.effective_on, context, version
        )
        return done(response, outcome)

    @router.post("/customers/{customer_id}/contradictions/{field}/resolve", responses=_RESOLVED)
    async def resolve_contradiction(
        response: Response,
        caller: Asking,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        field: Annotated[Detail, Path(description="the field of which two things are stated")],
        body: ResolveBody,
    ) -> Done:
        """Decides between the values that staff and a source state of a field."""
        command = ResolveContradiction(field, body.party_id, body.accept)
        resolved = service.change(customer_id, command, context, version)
        return done(response, await identified(caller, resolved))

    @router.post("/customers/{customer_id}/erase", status_code=202, responses=_ERASED)
    async def erase_customer(
        response: Response,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: ExplainedBody,
    ) -> ProposalAnswer:
        """Proposes to destroy the customer's personal values for good; refused within the retention period.

        Once a second person approves it, the keys are destroyed within seconds, and processes forget opened values
        within minutes. Figures stay."""
        return proposed(response, CONTEXT, await service.propose_erasure(customer_id, context, version))

    @router.get("/customers/{customer_id}/erasure", responses=_UNKNOWN)
    async def get_erasure(response: Response, customer_id: CustomerPath) -> ErasureAnswer:
        """How far the customer is erased, when the rest is due, and the legal holds that forbid it."""
        found = await service.erasure(customer_id)
        response.headers["ETag"] = entity_tag(found.version)
        return ErasureAnswer(
            customer_id=customer_id,
            erased=found.erased,
            contact_erased=found.contact_erased,
            rest_from=found.rest_from,
            legal_holds=[LegalHoldShown(hold_id=hold, until=until) for hold, until in found.holds.items()],
        )

    @router.post("/customers/{customer_id}/legal-holds", responses=_HELD)
    async def place_legal_hold(
        response: Response, context: Commanding, customer_id: CustomerPath, body: LegalHoldBody
    ) -> Done:
        """Forbids every erasure of the customer. The id of the hold is that of the command, and is shown with the erasure."""
        return done(response, await service.place_legal_hold(customer_id, body.until, context))

    @router.post("/customers/{customer_id}/legal-holds/{hold_id}/lift", status_code=202, responses=_LIFTED)
    async def lift_legal_hold(
        response: Response,
        context: Commanding,
        customer_id: CustomerPath,
        hold_id: Annotated[UUID, Path(description="the legal hold")],
        body: ExplainedBody,
    ) -> ProposalAnswer:
        """Proposes to lift a legal hold. Once a second person approves it, an erasure whose rest is due goes on."""
        return proposed(response, CONTEXT, await service.propose_lifting(customer_id, hold_id, context))

    @router.post("/customers/{customer_id}/erasure-preparation", responses=_PREPARED)
    async def prepare_erasure(
        response: Response,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: ExplainedBody,
    ) -> Done:
        """Has the sources release no record of the customer until it is erased; refused where an erasure would be.

        It is prepared once each source has answered. Where one refuses, or 15 days pass without the erasure, it ends."""
        return done(response, await service.prepare_erasure(customer_id, context, version))

    @router.post("/customers/{customer_id}/erasure-preparation/end", responses=_CHANGED)
    async def end_erasure_preparation(
        response: Response,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: ExplainedBody,
    ) -> Done:
        """Withdraws the preparation of an erasure: the sources release records of the customer again."""
        return await changed(response, customer_id, EndErasurePreparation("withdrawn"), context, version)

    @router.post(
        "/customers/branch-assignments",
        status_code=201,
        responses={
            **PREPARED,
            **refusals(ConditionInvalid, FieldNotPermitted, QueryTooSlow, CommandKeyReused, BulkOversized),
            **refusals(TooManyConflicts, CustomerNotRegistered),
        },
    )
    async def prepare_branch_assignment(
        response: Response, context: Commanding, caller: Asking, body: BranchAssignmentBody
    ) -> BulkAnswer:
        """Lists customers that are to be assigned to a branch, of a condition those who meet it now. Nothing is done
        until the run is started."""
        asked = question(FACTS_LIST, may_of(caller), body.where)
        those = await service.to_change(scope_of(caller), asked, body.customers)
        run = await service.bulk.prepare(
            ASSIGN_BRANCH,
            AssignBranch(body.branch),
            those.customers,
            context,
            asked=those.asked,
            selection=those.words,
        )
        return prepared(response, CONTEXT, run)

    @router.post("/customers/search", responses=_SEARCHED)
    async def search_customers(
        response: Response, context: Commanding, caller: Asking, body: SearchBody
    ) -> SearchFound:
        """Customers by the whole of a phone number, e-mail address or identity number. Each search is an event, with
        its reason and whom it found."""
        scope = scope_of(caller)
        found, more, position = await service.search(scope, body.field, body.value, context)
        response.headers["Consistency-Token"] = consistency_token(CONTEXT, position)
        return SearchFound(items=[CustomerShown(**one) for one in found], more=more)

    add_tags(router, service, dependencies)
    add_tiers(router, service, dependencies)
    add_what_if(router, service)
    add_needs(router, service, dependencies)
    add_consents(router, service, dependencies)
    add_profiles(router, service, dependencies)
    add_edits(router, service, dependencies, identified)
    add_files(router, lambda: service.files, dependencies)
    add_exports(router, lambda: service.exports, dependencies, CONTEXT, lambda: service.eyes)
    add_bulk(router, lambda: service.bulk, dependencies, CONTEXT, lambda: service.eyes)
    add_proposals(router, lambda: service.eyes, dependencies, CONTEXT)
    add_notices(router, lambda: _inboxes_of(service), dependencies, CONTEXT, branch_of)
    add_sagas(router, lambda: service.sagas, CONTEXT)
    add_conditions(router, ASKED, ROLES, CONTEXT)

    @router.post("/customers/{customer_id}/key-customer", responses=_CHANGED)
    async def name_key_customer(
        response: Response,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: DatedExplainedBody,
    ) -> Done:
        """Makes the customer a key customer (重点客户), from today or from earlier on: it is to be reviewed once in a calendar
        month."""
        return done(response, await service.name_key_customer(customer_id, context, version))

    @router.post("/customers/{customer_id}/key-customer/end", responses=_CHANGED)
    async def end_key_customer(
        response: Response,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: DatedExplainedBody,
    ) -> Done:
        """The customer is no key customer any more: no review falls due."""
        return await changed(response, customer_id, EndKeyCustomer(), context, version)

    @router.post("/customers/{customer_id}/review", responses=_REVIEWED)
    async def review_customer(
        response: Response,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: DatedBody,
    ) -> Done:
        """Says that a key customer was reviewed, today or earlier; the next review is due a calendar month later.

        A review of a day before the one that the next review is counted from changes nothing."""
        return done(response, await service.review(customer_id, context, version))

    # questions

    async def meant(caller: Caller, where: str | None, as_of: date | None = None) -> Question:
        """What a caller asks of the facts, with the codes of the tags that it names."""
        return await service.queries.meanings.meant(question(FACTS_LIST, may_of(caller), where, as_of=as_of))

    async def listed_customers(caller: Caller, asked: Question, page: Paging, *, total: bool) -> CustomerPage:
        scope = scope_of(caller)
        found, following = await service.customers(scope, asked, caller.subject, page.limit, page.after)
        counted = Total.of(await service.customers_counted(scope, asked)) if total else None
        return CustomerPage(items=[CustomerShown(**one) for one in found], next=following, total=counted)

    @router.get("/data-quality/customers", dependencies=asking, responses=LISTED)
    async def list_questions(
        caller: Asking, page: Paged, question: QuestionWanted = None, total: Totalled = False
    ) -> CustomerPage:
        """Customers with open data-quality questions: contradictions, invalid values, references that wait
        for confirmation, identity numbers that two customers have."""
        wanted = _QUESTIONS if question is None else Has(field=_QUESTIONS.field, values=(question,))
        return await listed_customers(caller, Question(wanted), page, total=total)

    @router.get("/customers", dependencies=asking, responses=LISTED)
    async def list_customers(
        caller: Asking,
        page: Paged,
        reference: WantedReference = None,
        where: Filtered = None,
        sort: Sorted = None,
        as_of: AsOf = None,
        total: Totalled = False,
    ) -> CustomerPage:
        """Customers, or the one that a source knows under its own number (`reference`, alone).

        Of those that you may see. A field that you may not ask for is refused."""
        if reference is not None:
            if where is not None or sort is not None or page.after is not None or total:
                raise RequestInvalid("reference stands alone")
            source, _, number = reference.partition(":")
            found = await service.by_reference(scope_of(caller), source, number)
            return CustomerPage(items=[CustomerShown(**one) for one in found], next=None)
        asked = question(CUSTOMERS_LIST, may_of(caller), where, sort, as_of)
        return await listed_customers(caller, asked, page, total=total)

    @router.get("/customers/selection", dependencies=asking_facts, responses=LISTED)
    async def select_customers(
        caller: Asking,
        page: Paged,
        where: Filtered = None,
        sort: Sorted = None,
        as_of: AsOf = None,
        total: Totalled = False,
    ) -> FactsPage:
        """The facts of customers that meet a condition on them, of those that you may see. A field that you may not
        ask for is refused, and null in what is shown."""
        scope, typed = scope_of(caller), question(FACTS_LIST, may_of(caller), where, sort, as_of)
        asked = await service.queries.meanings.meant(typed)
        found, following = await service.selected(scope, asked, caller.subject, page.limit, page.after)
        counted = Total.of(await service.counted(scope, asked)) if total else None
        return FactsPage(items=[facts_shown(one, caller) for one in found], next=following, total=counted)

    @router.get("/customers/selection/count", dependencies=asking_facts, responses=COUNTED)
    async def count_customers(caller: Asking, where: Where, as_of: AsOf = None) -> CountedCondition:
        """How many customers meet a condition, counted up to 10,000."""
        asked = await meant(caller, where, as_of)
        found = await service.counted(scope_of(caller), asked)
        words = Sentence.of(sentence(await service.queries.meanings.named(_condition(asked)), FIELDS))
        return CountedCondition(count=found.count, more=found.more, sentence=words)

    @router.get("/customers/selection/funnel", dependencies=asking_facts, responses=COUNTED)
    async def funnel_customers(caller: Asking, where: Where, as_of: AsOf = None) -> Funnel:
        """How many customers each part of a condition leaves; where none is left, the smallest set of parts that no
        customer meets together (R081)."""
        condition = _condition(await meant(caller, where))
        steps, culprits = await service.funnel(scope_of(caller), condition, as_of)
        return funnel_of(steps, culprits, FIELDS)

    @router.get("/customers/branches", dependencies=asking_facts)
    async def sum_branches(caller: Asking, page: Paged) -> BranchesPage:
        """How many customers each branch has, and what their assets under management add up to, of the branches that you
        may see."""
        return page_of(await service.branches(scope_of(caller)), may_of(caller), page)

    @router.get(
        "/customers/changes",
        dependencies=asking_facts,
        responses=_WATCHED,
        response_class=EventStream,
    )
    async def watch_customers(
        caller: Asking,
        customers: Watching = [],  # noqa: B006 (FastAPI copies it)
        where: WatchedWhere = None,
        seconds: Seconds = STREAM_SECONDS_MAX,
        after: LastEventId = None,
    ) -> Response:
        """Server-sent events: which of these customers changed, in the panorama or elsewhere. Only ids are told.

        After `reset` the caller reads everything again, and after `changed` what it names. A stream that ends is asked
        for again with the id of the last event as `Last-Event-ID`.
        """
        if not customers and where is None:
            raise RequestInvalid("customer or where is needed")
        scope = scope_of(caller)

        async def means() -> Condition | None:
            return (await meant(caller, where)).condition

        wanted_ids = frozenset(map(str, customers)) if customers else None
        wanted = Wanted(wanted_ids, await means(), scope.as_condition())
        await service.require_facts(scope, customers)
        return streamed(service.hub, wanted, after, seconds, means)

    @router.get(
        "/customers/{customer_id}/selection",
        dependencies=asking_facts,
        responses={**COUNTED, **_UNKNOWN},
    )
    async def explain_customer(
        caller: Asking, customer_id: CustomerPath, where: Where, as_of: AsOf = None
    ) -> Explained:
        """Why a customer meets a condition, or does not."""
        condition = _condition(await meant(caller, where))
        found = await service.explained(scope_of(caller), customer_id, condition, as_of)
        return explained(found.holds, found.reasons)

    @router.get("/customers/{customer_id}", dependencies=asking, responses=_SHOWN)
    async def get_customer(response: Response, caller: Asking, customer_id: CustomerPath) -> CustomerShown:
        """A customer, masked. The ETag is the version that a change must name in `If-Match`."""
        found = CustomerShown(**await service.customer(scope_of(caller), customer_id))
        response.headers["ETag"] = entity_tag(found.version)
        return found

    @router.get(
        "/customers/{customer_id}/accounts",
        dependencies=asking,
        responses=refusals(CustomerNotRegistered, HoldingsTooLarge),
    )
    async def list_accounts(caller: Asking, customer_id: CustomerPath) -> Accounts:
        """The accounts of a customer with all their holders."""
        found = await service.accounts(scope_of(caller), customer_id)
        return Accounts(items=[AccountHeld(**one) for one in found])

    @router.get(
        "/customers/{customer_id}/accounts/{account_id}/movements",
        dependencies=asking,
        responses=refusals(AccountNotHeld),
    )
    async def list_movements(
        caller: Asking,
        customer_id: CustomerPath,
        account_id: AccountPath,
        page: Paged,
        currency: CurrencyWanted = None,
        month: MonthWanted = None,
        kind: Annotated[
            TransactionTypeKnown | None, Query(description="only what counts under this transaction type")
        ] = None,
        spending: Annotated[
            bool, Query(description="only what counts as spending; `month` then is the month it counts in")
        ] = False,
    ) -> MovementPage:
        """The movements behind a figure; `sums` over all of them is that figure."""
        wanted = MovementsWanted(currency, month, kind, spending)
        found, sums = await service.movements(
            scope_of(caller), customer_id, account_id, wanted, _after(page, int) or 0, page.limit
        )
        return MovementPage(
            items=[Movement(**one) for one in found],
            next=_next(found, "sequence", page),
            sums=[{**one} for one in sums],  # type: ignore[typeddict-item]
        )

    @router.get(
        "/customers/{customer_id}/accounts/{account_id}/loans",
        dependencies=asking,
        responses=refusals(AccountNotHeld),
    )
    async def list_loans(
        caller: Asking, customer_id: CustomerPath, account_id: AccountPath, currency: CurrencyWanted = None
    ) -> Loans:
        """The loans behind a figure: granted, by which event, and what was repaid; `sums` is that figure."""
        loans, sums = await service.loans(scope_of(caller), customer_id, account_id, currency)
        return Loans(items=loans, sums=sums)

    @router.get("/customers/{customer_id}/events", responses=_UNKNOWN)
    async def list_events(customer_id: CustomerPath, page: Paged, caller: Asking) -> EventPage:
        """The events of a customer, with actor and reason, without personal values.

        Legal holds are shown to those alone who may read them: the customer must not learn of one."""
        hidden = NOT_TOLD if caller.roles.isdisjoint(ROLES["get_erasure"]) else frozenset[str]()
        found = await service.events(customer_id, _after(page, int) or 0, page.limit, hidden)
        return EventPage(
            items=[CustomerEventShown(**one) for one in found], next=_next(found, "sequence", page)
        )

    @router.get("/accounts/unlinked", dependencies=asking)
    async def list_unlinked(caller: Asking, page: Paged) -> UnlinkedPage:
        """Accounts that wait for their customer, of your branch or of none: no holder is named yet, or none of them is a customer.

        A page may be short, even empty, and have a `next`: one call looks at a bounded number of accounts.
        """
        scope = scope_of(caller)
        found, reached, counted, all_counted = await service.unlinked(scope, _after(page, UUID), page.limit)
        return UnlinkedPage(
            items=[AccountKnown(**one) for one in found],
            next=None if reached is None else cursor(reached),
            counted=counted,
            all_counted=all_counted,
        )

    return router


def _customer_in(path: Mapping[str, str]) -> UUID | None:
    """The customer in a path; None where it names none, or where what it has is no id, which the route refuses."""
    try:
        return UUID(path["customer_id"])
    except (KeyError, ValueError):
        return None


def _condition(asked: Question) -> Condition:
    """The condition of a question that has one."""
    if asked.condition is None:
        raise TypeError("a question without a condition")
    return asked.condition


def _after(page: Paging, type: type[T]) -> T | None:
    """The last sort key of the page before; raises CursorInvalid."""
    if page.after is None:
        return None
    [value] = cursor_values(page.after, type)
    return cast(T, value)


def _next(found: Sequence[Mapping[str, Any]], key: str, page: Paging) -> str | None:
    return cursor(found[-1][key]) if len(found) == page.limit else None


def _inboxes_of(service: CustomerService) -> Inboxes:
    if service.inboxes is None:
        raise NotReady("this process has no inboxes")
    return service.inboxes
