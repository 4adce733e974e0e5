// Reads {messages: [{direction, message}]} from standard input and prints what the protocol's own schemas say of each, as
// fbp-client asks them (ajv) and as fbp-test means to (tv4), with the kinds that have a schema and what capabilities allow:
// {verdicts: [{ajv, tv4}], input: [...], output: [...], capabilities: [{name, inputs, outputs}]}.
const Ajv = require('ajv');
const draft04 = require('ajv/lib/refs/json-schema-draft-04.json');
const tv4 = require('fbp-protocol/schema/index.js');
const schemas = require('fbp-protocol/schema/schemas');

const protocols = ['runtime', 'graph', 'component', 'network', 'trace'];
const { capabilities } = schemas.shared;

const ajv = new Ajv({ extendRefs: true, schemaId: 'id', meta: false, logger: false });
ajv.addMetaSchema(draft04);
ajv._opts.defaultMeta = draft04.id;
for (const [name, schema] of Object.entries(schemas)) {
  ajv.addSchema({ ...schema, id: `/${name}/` });
}

function verdict({ direction, message }) {
  const { protocol, command } = message;
  if (!(schemas[protocol] && schemas[protocol][direction] && schemas[protocol][direction][command])) {
    return { ajv: 'no schema', tv4: 'no schema' };
  }
  const path = `/${protocol}/${direction}/${command}`;
  return { ajv: ajv.validate(path, message) ? 'valid' : ajv.errorsText(), tv4: byTv4(path, message) };
}

function byTv4(path, message) {
  try {
    const { valid, errors, missing } = tv4.validateMultiple(message, path);
    if (missing.length) { return `missing ${missing}`; }
    return valid ? 'valid' : errors.map((e) => `${e.dataPath} ${e.message}`).join(', ');
  } catch (err) {
    return err.message; // the null properties of network:persist
  }
}

function kinds(direction) {
  return protocols.flatMap((p) => Object.keys(schemas[p][direction]).map((command) => `${p}:${command}`));
}

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) { chunks.push(chunk); }
  const { messages } = JSON.parse(Buffer.concat(chunks).toString('utf8'));
  process.stdout.write(JSON.stringify({
    verdicts: (messages || []).map(verdict),
    input: kinds('input'),
    output: kinds('output'),
    capabilities: capabilities.items._enumDescriptions.map(({ name, inputs, outputs }) => ({ name, inputs, outputs })),
  }));
}

main();
