"""Every message by name, as dataclasses: `from tailrace.broker.protocol.messages import ProduceRequest`.

Names are those of Kafka's message definitions in snake case; a few nested names that Kafka uses twice carry
their API's name here.  Which versions exist and which the broker advertises: `tailrace.broker.protocol.api`.
"""

from tailrace.broker.protocol.messages.acls import *
from tailrace.broker.protocol.messages.cluster import *
from tailrace.broker.protocol.messages.configs import *
from tailrace.broker.protocol.messages.consumer_groups import *
from tailrace.broker.protocol.messages.fetch import *
from tailrace.broker.protocol.messages.group_offsets import *
from tailrace.broker.protocol.messages.groups import *
from tailrace.broker.protocol.messages.list_offsets import *
from tailrace.broker.protocol.messages.log_dirs import *
from tailrace.broker.protocol.messages.metadata import *
from tailrace.broker.protocol.messages.produce import *
from tailrace.broker.protocol.messages.quotas import *
from tailrace.broker.protocol.messages.sasl import *
from tailrace.broker.protocol.messages.topics import *
from tailrace.broker.protocol.messages.transactions import *
