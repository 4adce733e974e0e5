# For a box with little memory: the transports run in the gateway's own process. That saves some 10 MB for each, and
# a crash in one of them is then a crash of all.

site "box" {
  drain = "2s"
}

broker "mqtt" "house" {
  url       = "mqtt://127.0.0.1:1883"
  isolation = "none"
}

broker "nats" "bus" {
  url       = "nats://127.0.0.1:4222"
  isolation = "none"
}

graph "main" {
  text = <<-EOT
    thermometer(demo/Thermometer) TEMPERATURE -> IN display(demo/Display)
  EOT
}

participant "thermometer" {
  component = "demo/Thermometer"
  broker    = broker.mqtt.house

  outport "temperature" {
    address = "sensors/hall"
    type    = "number"
    qos     = 0
  }
}

participant "display" {
  component = "demo/Display"
  broker    = broker.nats.bus

  inport "in" {
    address = "display.hall"
    type    = "number"
  }
}
