"""The lists of customers of which files are made: the same rows and columns as on their pages, masked as there."""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import date, timedelta
from functools import partial
from typing import Final

from chassis.conditions import Label
from chassis.exports import Column, Exportable, ExportNotPermitted, Rights, columns_of, plain
from chassis.lists import Counted, Listing, Question, Reader, Scope
from chassis.privacy.tokens import Caller
from chassis.read.documents import ID, Document

from customer.facts import allowed
from customer.lists import CURRENCIES_INDEXED, CUSTOMERS_LIST, FACTS_LIST, scope_of
from customer.permissions import EXPORT_APPROVERS, ROLES
from customer.queries import Queries

EXPORTED_ALONE_MAX: Final = 200
"""Rows that one person may have in a file: as many as a page shows."""
APPROVED_WITHIN: Final = timedelta(days=3)
_ID: Final = Label("客户编号", "customer")

_CUSTOMERS: Final = (
    plain("customer_id", _ID),
    plain("name", Label("姓名", "name")),
    *columns_of(CUSTOMERS_LIST.fields, ("kind", "origin", "branch")),
    plain("phone", Label("手机号", "phone")),
    plain("email", Label("电子邮箱", "e-mail")),
    plain("address", Label("地址", "address")),
    plain("born_on", Label("出生日期", "born on")),
    plain("identity_number", Label("证件号码", "identity number")),
    plain("registered_at", Label("登记时间", "registered at")),
    *columns_of(CUSTOMERS_LIST.fields, ("review_due_on",)),
)
_FACTS: Final = (
    Column("customer_id", (_ID,), lambda row: [row[ID]]),
    *columns_of(
        FACTS_LIST.fields,
        (
            *("kind", "branch", "products", "accounts", "first_opened_on", "last_movement_on"),
            *("aum", "liabilities", "net_worth"),
        ),
        CURRENCIES_INDEXED,
    ),
)


def exportables(queries: Queries, today: Callable[[], date]) -> dict[str, Exportable]:
    """The lists by the name under which a file of them is asked for: one for each page. Queries are read when they are needed: a
    process without views has none."""

    async def customers(found: Sequence[Document]) -> Sequence[Document]:
        # A file has no column that names another customer.
        return await queries.customers.masked(Scope.nothing(), found)

    async def facts(found: Sequence[Document]) -> Sequence[Document]:
        return found

    def declared(
        listing: Listing,
        reader: Callable[[], Reader],
        columns: tuple[Column, ...],
        shown: Callable[..., object],
        route: str,
        title: str,
    ) -> Exportable:
        return Exportable(
            listing=listing,
            columns=columns,
            documents=partial(_documents, queries, reader),
            counted=partial(_counted, queries, reader),
            shown=shown,  # type: ignore[arg-type]
            rights=partial(_rights, route),
            today=today,
            alone_rows_max=EXPORTED_ALONE_MAX,
            approvers=EXPORT_APPROVERS,
            lives=APPROVED_WITHIN,
            title=title,
        )

    return {
        "customers": declared(
            CUSTOMERS_LIST,
            lambda: queries.list,
            _CUSTOMERS,
            customers,
            "list_customers",
            "导出客户列表",
        ),
        "selection": declared(
            FACTS_LIST, lambda: queries.facts, _FACTS, facts, "select_customers", "导出客户筛选结果"
        ),
    }


async def _documents(
    queries: Queries, reader: Callable[[], Reader], scope: Scope, asked: Question
) -> AsyncIterator[list[Document]]:
    async for found in reader().documents(scope, await queries.meanings.meant(asked)):
        yield found


async def _counted(
    queries: Queries, reader: Callable[[], Reader], scope: Scope, asked: Question, most: int
) -> Counted:
    return await reader().count(scope, await queries.meanings.meant(asked), most)


def _rights(route: str, caller: Caller) -> Rights:
    """What the page of the list shows the caller, by the rules of now. The roles are those of the caller's token."""
    if caller.roles.isdisjoint(ROLES[route]):
        raise ExportNotPermitted
    return Rights(scope_of(caller), allowed(caller.roles))
