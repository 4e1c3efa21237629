"""An index over many runs, in SQLite or PostgreSQL; it can be rebuilt from their records.

Importing it needs the extra ``store``.

Raises:
    StoreError: If SQLAlchemy is not installed.
"""

from fxeval.errors import StoreError

try:
    import sqlalchemy as sqlalchemy
except ImportError as error:
    raise StoreError('The store needs SQLAlchemy: pip install "fxeval[store]".') from error
