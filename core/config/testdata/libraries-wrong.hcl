broker "mqtt" "house" {
  url       = "mqtt://127.0.0.1"
  discovery = ["bad/topic"]
  silence   = "-1s"
}
broker "amqp" "work" {
  url       = "fake://127.0.0.1"
  discovery = ["fbp", ""]
  silence   = "600"
}
broker "amqp" "twice" {
  url       = "fake://127.0.0.1"
  discovery = ["fbp", "fbp"]
  silence   = "10ms"
}
broker "amqp" "secret" {
  url       = "fake://127.0.0.1"
  discovery = [env("SECRET")]
  silense   = "1m"
}
library "two words" {}
library "lost" {
  file   = "nowhere/package.json"
  broker = broker.mqtt.house
}
library "lost" {}
library "both" {
  file      = "library"
  directory = "library"
  variables = {}
  broker    = broker.mqtt.house
  component "a/b" {}
}
library "brokerless" {
  componentdir = ""
}
library "inline" {
  directory = "library/package.json"
  namespace = "two words"
  variables = { TOKEN = env("SECRET") }
  handlers  = [".js"]
  env       = { "A=B" = "c" }
  start     = "perhaps"
  ignore    = ["hall", "the attic"]
  broker    = broker.mqtt.hause
  comand    = "x"

  component "a/b" {
    comand = "node"
  }
  component "a/b" {}
  component "" {}
}
library "away" {
  directory = "library/nowhere"
  broker    = broker.mqtt.house
}
