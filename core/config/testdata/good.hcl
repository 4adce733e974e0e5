# What becomes of everything that can be written.
site "house" {
  data_dir = "var"
  drain    = "1m30s"
}
listen {
  fbp   = nonsensitive("127.0.0.1:${env("PORT")}")
  admin = ":0"
}
plugins {
  directory = "plugins"
}
embedded "local" {
  mqtt = "127.0.0.1:1883"
  nats = "127.0.0.1:4222"
}
broker "mqtt" "house" {
  url           = "mqtt://${env("NOT_SET", "127.0.0.1")}:1883"
  password      = env("SECRET")
  max_unsettled = "100"
  keep_alive    = "1m30s"
  clean         = false
  servers       = ["a", "b"]
  properties    = { b = "2", a = "1" }
  later         = [1, "two"]
  username      = null
  tls {
    key = file("participants/siri.yml")
  }
}
broker "amqp" "work" {
  url       = "fake://127.0.0.1"
  isolation = "none"
}
broker "amqp" "alone" {
  url     = "fake://127.0.0.1"
  isolate = true
}
graph "side" {
  text = <<-EOT
    'on' -> START motor(demo/Motor)
  EOT
}
graph "main" {
  file = "graphs/good.fbp"
}
participant "siri" {
  file   = "participants/siri.yml"
  broker = broker.mqtt.house
  icon   = "comment"
}
participant "button" {
  component = "demo/Button"
  broker    = broker.amqp.work
  label     = "A button"
  command   = ["flogate", "demo", upper("button")]
  env       = { TOKEN = env("SECRET"), EMPTY = env("EMPTY") }
  outport "pressed" {
    address     = "button/pressed"
    type        = "boolean"
    description = "true while it is pressed"
    schema      = "https://example.org/boolean.json"
    qos         = 1
    durable     = true
  }
}
participant "motor" {
  component = "demo/Motor"
  broker    = broker.mqtt.house
  inport "start" {
    address = "motor/start"
    qos     = 1
    hidden  = true
  }
  outport "running" {
    address = "motor/running"
  }
}
edge "button.PRESSED" "motor.start" {
  require     = "at-least-once"
  dead_letter = "dead/start"
  window      = 100
}
edge "motor.running" "warninglight.red" {
  dead_letter        = "dead"
  dead_letter_broker = broker.amqp.work
}
