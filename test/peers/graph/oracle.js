// Reads {name: text} from standard input and prints what the reference implementations make of each text:
// {name: {fbp, fbpCaseSensitive, graph, order}} for the .fbp language, {name: {graph, order}} for FBP JSON, with {error} for
// what they refuse. order has the keys of objects, because readers of JSON may lose their order.
const fbp = require('fbp');
const { graph } = require('fbp-graph');

async function outcome(read) {
  try {
    return await read();
  } catch (err) {
    return { error: err.message };
  }
}

async function readings(name, text) {
  const all = {};
  if (name.endsWith('.json')) {
    all.graph = await outcome(async () => (await graph.loadJSON(text)).toJSON());
  } else {
    all.fbp = await outcome(() => fbp.parse(text, { caseSensitive: false }));
    all.fbpCaseSensitive = await outcome(() => fbp.parse(text, { caseSensitive: true }));
    all.graph = await outcome(async () => (await graph.loadFBP(text)).toJSON());
  }
  if (!all.graph.error) {
    const { processes, inports, outports } = all.graph;
    all.order = {
      processes: Object.keys(processes), inports: Object.keys(inports), outports: Object.keys(outports),
    };
  }
  return all;
}

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) { chunks.push(chunk); }
  const all = {};
  for (const [name, text] of Object.entries(JSON.parse(Buffer.concat(chunks).toString('utf8')))) {
    all[name] = await readings(name, text);
  }
  process.stdout.write(JSON.stringify(all));
}

main();
