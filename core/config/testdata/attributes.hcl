# Every attribute with a value that does not fit, and every block with a name that is not there.
site "a site" {
  drain    = "10"
  data_dir = ""
  color    = "blue"
}

site "another" {}

listen {
  fbp  = "127.0.0.1:356999"
  admn = "127.0.0.1:3570"
}

plugin {
  directory = "plugins"
}

broker "mqt" "misspelt" {
  url      = "mqtt://127.0.0.1:1883"
  isolate  = "perhaps"
  password = "hunter2"
}

broker "broken" "plugin" {}

broker "mqtt" "house" {
  url           = null
  ulr           = "mqtt://127.0.0.1:1883"
  keep_alive    = 5
  max_unsettled = "many"
  clean         = "maybe"
  version       = "3.1"
  servers       = { a = "b" }
  properties    = { a = null }
  isolation     = "proces"

  tls {
    server_nam = "house"
  }
  tls {}
}

broker "mqtt" "contradiction" {
  url       = "mqtt://127.0.0.1:1883"
  isolation = "none"
  isolate   = true
}

broker "mqtt" {
  url = "mqtt://127.0.0.1:1883"
}

broker "mqtt" "two words" {
  url = "mqtt://127.0.0.1:1883"
}

participant "button" {
  component = 5 + "x"
  broker    = broker.mqtt.house
  command   = []
  labl      = "Button"

  outport "pressed" {
    address = ""
    qos     = "one"
    durabel = true
  }
  outport "a b" {
    address = "button/held"
  }
  inport "reset" {
    durable = true
  }
}

edge "button.pressed" "motor.start" {
  require     = at-least-once
  window      = 0.5
  dead_letter = ""
}
