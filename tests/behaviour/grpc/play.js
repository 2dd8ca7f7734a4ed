// One play: servers and a client of @grpc/grpc-js, with Evener between them; see play.py.

const assert = require('node:assert');
const path = require('node:path');
const readline = require('node:readline');
const grpc = require(path.join(__dirname, '../../../target/grpc-js/node_modules/@grpc/grpc-js'));

const MIB = 1024 * 1024;
const OPTIONS = { 'grpc.max_receive_message_length': 64 * MIB, 'grpc.max_send_message_length': 64 * MIB };
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const same = (bytes) => bytes;

function method(name, requestStream, responseStream) {
  const bytes = { requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same };
  return { path: `/play.Play/${name}`, requestStream, responseStream, ...bytes };
}

const SERVICE = {
  Echo: method('Echo', false, false),
  Who: method('Who', false, false),
  Left: method('Left', false, false),
  Fail: method('Fail', false, false),
  Hang: method('Hang', false, false),
  Collect: method('Collect', true, false),
  Count: method('Count', false, true),
  FailLate: method('FailLate', false, true),
  Chat: method('Chat', true, true),
};

class Server {
  calls = 0;
  cancelled = 0;
  hanging = 0;

  async start() {
    this.server = new grpc.Server(OPTIONS);
    this.server.addService(SERVICE, {
      Echo: (call, done) => {
        const initial = new grpc.Metadata();
        for (const key of Object.keys(call.metadata.getMap()).filter((key) => key.startsWith('x-own'))) {
          for (const value of call.metadata.get(key)) initial.add(key, value);
        }
        call.sendMetadata(initial);
        const late = new grpc.Metadata();
        late.set('x-late-bin', Buffer.from([0, 255, 10]));
        done(null, call.request, late);
      },
      Who: (call, done) => {
        this.calls += 1;
        done(null, Buffer.from(String(this.port)));
      },
      Left: (call, done) => done(null, Buffer.from(String(call.getDeadline() - Date.now()))),
      Fail: (call, done) => done({ code: grpc.status.NOT_FOUND, details: 'no such thing: 100 % ä' }),
      Hang: (call) => this.hang(call),
      Collect: (call, done) => {
        let bytes = 0;
        call.on('data', (data) => (bytes += data.length));
        call.on('end', () => done(null, Buffer.from(String(bytes))));
      },
      Count: (call) => {
        for (let number = 0; number < Number(call.request); number += 1) call.write(Buffer.from(String(number)));
        call.end();
      },
      FailLate: (call) => {
        call.write(Buffer.from('one'));
        call.emit('error', { code: grpc.status.DATA_LOSS, details: 'the rest is gone' });
      },
      Chat: (call) => {
        let hangs = false;
        call.on('data', (data) => {
          hangs ||= data.toString() === 'hang';
          if (hangs) this.hang(call);
          else call.write(data);
        });
        // Node's clients say that they have no more to ask before they say that they cancel.
        call.on('end', () => hangs || call.end());
        call.on('error', () => {});
      },
    });
    const credentials = grpc.ServerCredentials.createInsecure();
    this.port = await new Promise((resolve, reject) => {
      this.server.bindAsync('127.0.0.1:0', credentials, (error, port) => (error ? reject(error) : resolve(port)));
    });
    return this;
  }

  hang(call) {
    call.on('cancelled', () => (this.cancelled += 1));
    this.hanging += 1;
  }
}

class Client extends grpc.Client {
  unary(name, request, metadata = new grpc.Metadata(), options = {}) {
    return new Promise((resolve, reject) => {
      const answer = {};
      const done = (error, message) => (error ? reject(error) : ((answer.message = message), settle()));
      const call = this.makeUnaryRequest(`/play.Play/${name}`, same, same, request, metadata, options, done);
      const settle = () => answer.message && answer.status && resolve(answer);
      call.on('metadata', (initial) => (answer.metadata = initial));
      call.on('status', (status) => ((answer.status = status), settle()));
    });
  }

  chat() {
    return this.makeBidiStreamRequest('/play.Play/Chat', same, same, new grpc.Metadata(), {});
  }
}

const next = (stream) =>
  new Promise((resolve, reject) => {
    stream.once('error', reject);
    stream.once('data', (message) => {
      stream.off('error', reject);
      resolve(message);
    });
  });

async function failure(promise) {
  return promise.then(() => assert.fail('it did not fail'), (error) => error);
}

async function eventually(condition) {
  const deadline = Date.now() + 60_000;
  while (!condition()) {
    assert(Date.now() < deadline, String(condition));
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function pause(what) {
  console.log('pause', what);
  await lines.next();
}

async function ask(chat, question) {
  const answer = next(chat);
  chat.write(question);
  return answer;
}

const plays = {
  async every_kind(client) {
    for (const message of [Buffer.alloc(0), Buffer.from('hello'), Buffer.alloc(100_000, 'z')]) {
      assert.deepEqual((await client.unary('Echo', message)).message, message);
    }
    const total = await new Promise((resolve, reject) => {
      const done = (error, answer) => (error ? reject(error) : resolve(answer));
      const call = client.makeClientStreamRequest('/play.Play/Collect', same, same, done);
      for (let turn = 0; turn < 1000; turn += 1) call.write(Buffer.from('abc'));
      call.end();
    });
    assert.equal(total.toString(), '3000');
    const numbers = [];
    const count = client.makeServerStreamRequest('/play.Play/Count', same, same, Buffer.from('1000'));
    for await (const number of count) numbers.push(Number(number));
    assert.deepEqual(numbers, [...Array(1000).keys()]);
  },

  async large(client) {
    const message = Buffer.alloc(8 * MIB, 'abcdefg');
    assert((await client.unary('Echo', message)).message.equals(message));
  },

  async metadata(client) {
    const given = new grpc.Metadata();
    given.set('x-own', 'plain');
    given.add('x-own-bin', Buffer.from([0, 255, 254, 44, 10]));
    const { metadata, status } = await client.unary('Echo', Buffer.from('x'), given);
    assert.deepEqual(metadata.get('x-own'), ['plain']);
    assert.deepEqual(metadata.get('x-own-bin'), [Buffer.from([0, 255, 254, 44, 10])]);
    assert.deepEqual(status.metadata.get('x-late-bin'), [Buffer.from([0, 255, 10])]);
  },

  async errors(client) {
    const error = await failure(client.unary('Fail', Buffer.alloc(0)));
    assert.deepEqual([error.code, error.details], [grpc.status.NOT_FOUND, 'no such thing: 100 % ä']);
    assert.equal((await failure(client.unary('Nobody', Buffer.alloc(0)))).code, grpc.status.UNIMPLEMENTED);
    const late = client.makeServerStreamRequest('/play.Play/FailLate', same, same, Buffer.alloc(0));
    const got = [];
    const end = await failure((async () => { for await (const one of late) got.push(one.toString()); })());
    assert.deepEqual([got, end.code, end.details], [['one'], grpc.status.DATA_LOSS, 'the rest is gone']);
  },

  async ping_pong(client) {
    const chat = client.chat();
    for (let turn = 0; turn < 300; turn += 1) assert.equal(String(await ask(chat, Buffer.from(`${turn}`))), `${turn}`);
    chat.end();
    await new Promise((resolve) => chat.on('status', resolve).resume());
  },

  async deadlines(client, servers) {
    const left = await client.unary('Left', Buffer.alloc(0), undefined, { deadline: Date.now() + 30_000 });
    assert(Number(left.message) > 0 && Number(left.message) <= 30_000, String(left.message));
    const hang = client.unary('Hang', Buffer.alloc(0), undefined, { deadline: Date.now() + 1000 });
    assert.equal((await failure(hang)).code, grpc.status.DEADLINE_EXCEEDED);
    await eventually(() => servers[0].cancelled === 1);
  },

  async cancellation(client, servers) {
    const done = () => {};
    const call = client.makeUnaryRequest('/play.Play/Hang', same, same, Buffer.alloc(0), done);
    await eventually(() => servers[0].hanging === 1);
    await pause('one in flight');
    call.cancel();
    await eventually(() => servers[0].cancelled === 1);
    const chat = client.chat();
    await ask(chat, Buffer.from('x'));
    chat.on('error', () => {});
    chat.write(Buffer.from('hang'));
    await eventually(() => servers[0].hanging === 2);
    chat.cancel();
    await eventually(() => servers[0].cancelled === 2);
    await pause('none in flight');
  },

  async balance(client, servers) {
    for (let turn = 0; turn < 30; turn += 1) await client.unary('Who', Buffer.alloc(0));
    assert.deepEqual(servers.map((server) => server.calls), [10, 10, 10]);
  },

  async survives(client) {
    const chat = client.chat();
    assert.equal(String(await ask(chat, Buffer.from('before'))), 'before');
    await pause('disturb');
    assert.equal(String(await ask(chat, Buffer.from('after'))), 'after');
    const status = new Promise((resolve) => chat.on('status', resolve).resume());
    chat.end();
    assert.equal((await status).code, grpc.status.OK);
  },

  // A server ends in good order, while calls are under way on a connection that they share.
  async stops(client, servers) {
    const chats = [...Array(4)].map(() => client.chat());
    for (const chat of chats) await ask(chat, Buffer.from('x'));
    let isDone = false;
    const load = async () => { while (!isDone) await client.unary('Who', Buffer.alloc(0)); };
    const loads = Promise.all([...Array(4)].map(load));
    await eventually(() => servers[0].calls > 50);
    const stopped = new Promise((resolve, reject) => servers[0].server.tryShutdown((error) => (error ? reject(error) : resolve())));
    await new Promise((resolve) => setTimeout(resolve, 300));
    for (const chat of chats) {
      assert.equal(String(await ask(chat, Buffer.from('y'))), 'y');
      const status = new Promise((resolve) => chat.on('status', resolve).resume());
      chat.end();
      assert.equal((await status).code, grpc.status.OK);
    }
    await stopped;
    const before = servers[1].calls;
    await eventually(() => servers[1].calls > before + 50);
    isDone = true;
    await loads;
  },
};

async function main(name, count) {
  const servers = await Promise.all([...Array(Number(count))].map(() => new Server().start()));
  console.log('ports', servers.map((server) => server.port).join(' '));
  const address = (await lines.next()).value.trim();
  const client = new Client(address, grpc.credentials.createInsecure(), OPTIONS);
  await plays[name](client, servers);
  console.log('done');
  process.exit(0);
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
