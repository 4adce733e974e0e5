// A participant that passes on what it gets, but rejects the text "bad".
const msgflo = require('msgflo-nodejs');

module.exports = (client, role) => new msgflo.participant.Participant(client, {
  component: 'Choosy',
  inports: [{ id: 'in', type: 'any' }],
  outports: [{ id: 'out', type: 'any' }],
}, (inport, data, callback) => {
  if (data === 'bad') {
    callback('out', new Error('bad'), null);
    return;
  }
  callback('out', null, data);
}, role);
