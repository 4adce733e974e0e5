broker "mqtt" "house" {
  url = "mqtt://127.0.0.1:1883"
}
broker "amqp" "work" {
  url = "mqtt://127.0.0.1:1883"
}
participant "none" {
  component = "demo/None"
}
participant "misspelt" {
  component = "demo/Misspelt"
  broker    = broker.mqtt.huose
}
participant "other" {
  component = "demo/Other"
  broker    = broker.nats.bus
}
participant "quoted" {
  component = "demo/Quoted"
  broker    = "broker.mqtt.house"
}
participant "short" {
  component = "demo/Short"
  broker    = mqtt.house
}
participant "index" {
  component = "demo/Index"
  broker    = broker["mqtt"].house
}
participant "text" {
  component = "demo/${broker.mqtt.house}"
  broker    = broker.mqtt.house
}
participant "robin" {
  component = "msgflo/RoundRobin"
  broker    = broker.mqtt.house
}
participant "half" {
  broker = broker.mqtt.house
}
participant "double" {
  file      = "participants/siri.yml"
  component = "demo/Double"
  broker    = broker.mqtt.house
  env       = { A = "b" }

  inport "OPEN" {
    address = "open"
  }
}
