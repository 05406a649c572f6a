"""`python -m customer ROLE` (`api`, `relay`, `views`, ... of `bootstrap.roles`): one role per process in production, any of
them together elsewhere; `migrate` is a step of its own before them."""

from customer.service import SERVICE

if __name__ == "__main__":
    SERVICE.run()
