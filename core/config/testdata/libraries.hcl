# Everything that can be written about discovery and libraries.
broker "mqtt" "house" {
  url       = "mqtt://127.0.0.1"
  discovery = ["fbp", "msgflo/discover"]
  silence   = "2m"
}
broker "amqp" "work" {
  url       = "fake://127.0.0.1"
  discovery = []
  silence   = "0s"
}
broker "amqp" "plain" {
  url = "fake://127.0.0.1"
}
library "lights" {
  file         = "library/package.json"
  componentdir = "components"
  broker       = broker.mqtt.house
  env          = { TOKEN = env("SECRET") }
  start        = false
  ignore       = ["hall", "attic"]
}
library "folder" {
  file         = "library"
  componentdir = "participants"
  broker       = broker.mqtt.house
}
library "api" {
  directory    = "library"
  componentdir = "participants"
  namespace    = ""
  repository   = "https://example.org/api.git"
  variables    = { PREFETCH = "--prefetch 1" }
  handlers     = { ".rs" = "run-rust #FILENAME --role #ROLE", ".json" = "", ".py" = false }
  broker       = broker.amqp.work

  component "api/Web" {
    command     = "node web.js --name #ROLE"
    description = "Answers"
    language    = "javascript"
  }
  component "api/Elsewhere" {}
}
library "bare" {
  broker = broker.amqp.plain
}
participant "bulb" {
  file   = "participants/bulb.yml"
  broker = broker.mqtt.house
}
