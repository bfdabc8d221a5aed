#!/usr/bin/python3
"""What a client in another language gets of the service: every type of answer, signals and errors.

Usage: bus_client.py all ADDRESS        everything, on a bus
       bus_client.py peer PATH          reads at a socket without a bus, and listens until it closes
       bus_client.py die ADDRESS KEY    asks for a put and is killed at once
Prints a line for each thing that went well; an exception ends it otherwise. Needs python3-jeepney.
"""

import fcntl
import json
import os
import signal
import struct
import sys

from jeepney import (
    DBusAddress, HeaderFields, MatchRule, MessageType, Properties, message_bus, new_method_call,
)
from jeepney.io.blocking import open_dbus_connection, prep_socket
from jeepney.low_level import Parser

PATH, NAME = '/org/opdbus', 'org.opdbus'
TIMEOUT_S = 60
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Failed(Exception):
    """An error that came over the bus, with its name."""

    def __init__(self, reply):
        self.name = reply.header.fields[HeaderFields.error_name]
        super().__init__(f'{self.name}: {reply.body}')


class Service:
    """The service, called by interface and method."""

    def __init__(self, connection):
        self.connection = connection

    def address(self, interface):
        return DBusAddress(PATH, bus_name=NAME, interface=f'{NAME}.{interface}')

    def call(self, interface, method, signature=None, *arguments):
        message = new_method_call(self.address(interface), method, signature, arguments)
        return self.answer(message)

    def answer(self, message):
        reply = self.connection.send_and_get_reply(message, timeout=TIMEOUT_S)
        if reply.header.message_type == MessageType.error:
            raise Failed(reply)
        return reply.body

    def error(self, *call):
        try:
            answer = self.call(*call)
        except Failed as failed:
            return failed.name
        raise AssertionError(f'{call} was answered: {answer}')


def sealed(content, seals=SEALS):
    file = os.memfd_create('vector', os.MFD_ALLOW_SEALING)
    os.write(file, content)
    if seals:
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    return file


def searches(service):
    hits, = service.call('Query1', 'Search', 'sa{sv}', 'a thirsty bird', {'limit': ('u', 2)})
    assert len(hits) == 2, hits
    collection, key, score, text, payload = hits[0]
    assert (collection, payload) == ('documents', ''), hits
    assert 'crow' in text and 0 < score <= 1, hits
    record, = service.call('Query1', 'Get', 'ss', collection, key)
    assert record['text'] == ('s', text), record
    hits, = service.call('Query1', 'Similar', 'va{sv}', ('(ss)', (collection, key)), {})
    assert hits and key not in [hit[1] for hit in hits], hits
    for target, first in [(('(ss)', (collection, key)), hits[0][1]), (('s', 'a thirsty bird'), key)]:
        found, explain = service.call('Query1', 'Explain', 'va{sv}', target, {})
        assert found[0][1] == first, found
        assert json.loads(explain)['collections'][0]['name'] == collection, explain
    print('search')


def embeds(service):
    dimensions, (signature, vector) = service.call('Cache1', 'Embed', 'as', ['a thirsty bird'])
    assert (signature, len(vector)) == ('ay', 4 * dimensions)
    texts = [f'a text that has the number {number}' for number in range(100)]
    dimensions, (signature, file) = service.call('Cache1', 'Embed', 'as', texts)
    assert signature == 'h', signature
    with file.to_file('rb') as memory:
        assert fcntl.fcntl(memory, fcntl.F_GET_SEALS) & SEALS == SEALS
        memory.seek(0)
        vectors = memory.read()
    assert len(vectors) == 100 * 4 * dimensions, len(vectors)
    for number, text in enumerate(texts):
        (signature, single), = service.call('Cache1', 'Get', 's', text)
        assert signature == 'ay'
        assert single == vectors[number * 4 * dimensions:(number + 1) * 4 * dimensions], text
    print('embed')
    return vector


def sends_memory(service, vector):
    for target in [('ay', vector), ('h', sealed(vector)),
                   ('ad', list(struct.unpack(f'<{len(vector) // 4}f', vector)))]:
        hits, = service.call('Query1', 'Similar', 'va{sv}', target, {'limit': ('u', 1)})
        assert 'crow' in hits[0][3], (target[0], hits)
    for seals in [0, fcntl.F_SEAL_WRITE, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW]:
        target = ('h', sealed(vector, seals))
        error = service.error('Query1', 'Similar', 'va{sv}', target, {})
        assert error == f'{NAME}.Error.Invalid', error
    service.call('Cache1', 'Put', 'sv', 'put by another', ('h', sealed(vector)))
    (_, back), = service.call('Cache1', 'Get', 's', 'put by another')
    assert back == vector
    print('memory')


def hears(connection, interface, member):
    rule = MatchRule(type='signal', path=PATH, interface=interface, member=member)
    connection.send_and_get_reply(message_bus.AddMatch(rule), timeout=TIMEOUT_S)
    return connection.filter(rule)


def is_told(service):
    connection = service.connection
    with hears(connection, f'{NAME}.State1', 'Changed') as changes:
        service.call('State1', 'Put', 'ss', 'hosts/web1', '{"role": "proxy"}')
        key, operation, sequence = connection.recv_until_filtered(changes, timeout=TIMEOUT_S).body
    assert (key, operation) == ('hosts/web1', 'put') and sequence > 0
    document, = service.call('State1', 'Get', 's', 'hosts/web1')
    assert document == '{"role": "proxy"}', document
    print('changed')
    with hears(connection, 'org.freedesktop.DBus.Properties', 'PropertiesChanged') as changes:
        name, = service.call('Snapshot1', 'Create', 'sb', 'because', False)
        interface, changed, _ = connection.recv_until_filtered(changes, timeout=TIMEOUT_S).body
    assert interface == f'{NAME}.Snapshot1', interface
    assert changed['Names'] == ('as', [name]), changed
    names, = service.answer(Properties(service.address('Snapshot1')).get('Names'))
    assert names == ('as', [name]), names
    print('snapshot')


def fails(service):
    errors = {
        'NotFound': ('State1', 'Get', 's', 'nothing'),
        'Invalid': ('State1', 'Put', 'ss', 'key', 'not JSON'),
    }
    for name, call in errors.items():
        error = service.error(*call)
        assert error == f'{NAME}.Error.{name}', error
    error = service.error('State1', 'Put', 's', 'key')
    assert error == 'org.freedesktop.DBus.Error.InvalidArgs', error
    print('errors')


def read_without_bus(path):
    """Prints how a read ends, and what comes next until the other end has nothing more to say."""
    # Jeepney's connections greet a bus, and here is none.
    connection, parser = prep_socket(path), Parser()
    address = DBusAddress(PATH, bus_name=NAME, interface=f'{NAME}.State1')
    connection.settimeout(TIMEOUT_S)
    connection.sendall(new_method_call(address, 'Get', 's', ('nothing',)).serialise(serial=1))
    while True:
        message = parser.get_next_message()
        if message is None:
            received = connection.recv(4096)
            if not received:
                break
            parser.add_data(received)
        elif message.header.message_type == MessageType.error:
            print(message.header.fields[HeaderFields.error_name], flush=True)
        else:
            print(message.header.fields[HeaderFields.member], flush=True)


def main():
    what, where, *rest = sys.argv[1:]
    if what == 'peer':
        read_without_bus(where)
        return
    connection = open_dbus_connection(bus=where, enable_fds=True)
    service = Service(connection)
    if what == 'die':
        # From here on the service knows it.
        service.error('State1', 'Get', 's', 'nothing')
        message = new_method_call(service.address('State1'), 'Put', 'ss', (rest[0], '{}'))
        connection.send(message)
        os.kill(os.getpid(), signal.SIGKILL)
    searches(service)
    sends_memory(service, embeds(service))
    is_told(service)
    fails(service)


main()
