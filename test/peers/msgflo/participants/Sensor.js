// A participant with an outport only, whose ports say all that msgflo-nodejs lets them say.
const msgflo = require('msgflo-nodejs');

module.exports = (client, role) => new msgflo.participant.Participant(client, {
  component: 'demo/Sensor',
  label: 'Measures',
  inports: [],
  outports: [{
    id: 'temperature',
    type: 'number',
    queue: 'sensors/hall/temperature',
    description: 'Degrees',
    schema: 'https://example.org/temperature.json',
  }],
}, () => {}, role);
