# Encrypted connections, with passwords from the environment and certificates from the folder of this file. What env()
# and file() return is never printed.
#
# The folder certs has to have ca.pem, and for the broker that asks for a certificate client.pem and client-key.pem.

site "tls" {}

listen {
  admin = nonsensitive(env("ADMIN_LISTEN", "127.0.0.1:3570"))
}

broker "mqtt" "house" {
  url      = "mqtts://${env("MQTT_HOST")}:8883"
  username = env("MQTT_USER")
  password = env("MQTT_PASSWORD")

  tls {
    ca = file("certs/ca.pem")
  }
}

broker "amqp" "work" {
  url  = "amqps://${env("AMQP_HOST")}:5671/"
  auth = "external"

  tls {
    ca   = file("certs/ca.pem")
    cert = file("certs/client.pem")
    key  = file("certs/client-key.pem")
  }
}

graph "main" {
  file = "graphs/archive.fbp"
}

participant "thermometer" {
  component = "demo/Thermometer"
  broker    = broker.mqtt.house

  outport "temperature" {
    address = "sensors/hall"
    type    = "number"
  }
}

participant "archive" {
  component = "demo/Archive"
  broker    = broker.amqp.work

  inport "in" {
    address = "archive"
  }
}
